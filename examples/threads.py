"""An app's own threads, whose work belongs to the request that starts them.

::

    export MLFLOW_TRACKING_URI=http://127.0.0.1:5000 MLFLOW_EXPERIMENT_NAME=chats
    flask --app threads run
"""

import asyncio
import contextvars
from concurrent.futures import ThreadPoolExecutor
from threading import Thread

import mlflow
from flask import Flask

from mlflow_middleware.flask import MLflowMiddleware
from mlflow_middleware.request_trace import annotate, carry

app = Flask(__name__)
MLflowMiddleware(app)
pool = ThreadPoolExecutor(4)


@mlflow.trace
def look_up(source: str) -> str:
    """Work that belongs to the request, in whichever thread it runs."""
    annotate(tags={f"source.{source}": "read"})
    return source.upper()


@app.get("/pool")
def in_a_pool() -> list[str]:
    return list(pool.map(carry(look_up), ["wiki", "web"]))


@app.get("/thread")
def in_a_thread() -> str:
    thread = Thread(target=carry(look_up), args=["wiki"])
    thread.start()
    thread.join()
    return "done"


@app.get("/context")
def with_the_standard_library() -> str:
    found: str = pool.submit(contextvars.copy_context().run, look_up, "wiki").result()
    return found


@app.get("/asyncio")
async def in_asyncio() -> list[str]:
    loop = asyncio.get_running_loop()
    first = await loop.run_in_executor(None, carry(look_up), "wiki")
    second = await asyncio.to_thread(look_up, "web")  # carries the request by itself
    return [first, second]
