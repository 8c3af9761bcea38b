"""The app that all tools trace: an OpenAI-style chat, whole and streamed, and other kinds of requests."""

from __future__ import annotations

import asyncio
import json
import os
import queue
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, asynccontextmanager
from typing import Any

from fastapi import BackgroundTasks, Body, FastAPI, HTTPException, Request, Response
from fastapi.responses import StreamingResponse

from tests.comparison import tools
from tests.comparison.contents import MODEL, WORDS, answer_to
from tests.comparison.tools import Function

tool = tools.chosen()
pool = ThreadPoolExecutor(2)
jobs: queue.Queue[dict[str, str]] = queue.Queue()


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Flush at the end, if requested."""
    yield
    if os.environ.get("COMPARE_FLUSH"):
        tool.flush()


app = FastAPI(lifespan=lifespan)
tool.set_up(app)
Json = dict[str, Any]
BODY = Body()


def decorated(name: str) -> Callable[[Function], Function]:
    """Apply the tool's own decorator, if it has one and the mode uses it."""
    return lambda function: tool.decorated(function, name)


def identified(request: Request) -> AbstractContextManager[Any]:
    """Tell the tool whose request it is: the conversation in the body's context beats the header."""
    headers = request.headers
    return tool.identified(
        request.scope.get("conversation") or headers["x-session-id"], headers["x-user-id"], headers["x-request-id"]
    )


@app.get("/health")
def health() -> Json:
    return {"status": "ok"}


@app.get("/items")
def items() -> list[int]:
    return [1, 2, 3]


@app.post("/chats/{chat_id}")
@decorated("POST /chats/{chat_id}")
def chat(chat_id: str, request: Request, response: Response, body: Json = BODY) -> Json:
    request.scope["conversation"] = body.get("context", {}).get("conversation_id")
    with identified(request):
        with tool.span("look-up"):
            answer = answer_to(body)
        tool.answered(answer)
        tool.noted(plain=request.headers["x-plain"], status=200)
    response.headers.update(tool.trace_headers())
    return answer


@tool.streamed
async def words() -> AsyncIterator[str]:
    """Stand in for a model that answers word by word."""
    sent: list[str] = []
    try:
        for word in WORDS:
            sent.append(word)
            yield word
            await asyncio.sleep(0.1)
    finally:
        tool.report_answer("".join(sent))


async def chunks() -> AsyncIterator[str]:
    """Send the words in OpenAI's format."""
    async for word in words():
        delta = {"model": MODEL, "choices": [{"index": 0, "delta": {"content": word}}]}
        yield f"data: {json.dumps(delta)}\n\n"
    yield "data: [DONE]\n\n"


@app.post("/called")
def called(request: Request, body: Json = BODY) -> Json:
    """Answer a call by another service."""
    with tool.called(request.headers), tool.span("called"):
        return {}


@app.post("/streams")
@decorated("POST /streams")
async def stream(body: Json = BODY) -> StreamingResponse:
    return StreamingResponse(chunks(), media_type="text/event-stream")


@app.post("/failures")
@decorated("POST /failures")
def fail(body: Json = BODY) -> None:
    raise ValueError("on purpose")


@app.post("/unavailable")
@decorated("POST /unavailable")
def unavailable(body: Json = BODY) -> None:
    raise HTTPException(503, "on purpose")


def in_pool() -> None:
    with tool.span("in-pool"):
        pass


@app.post("/pools")
@decorated("POST /pools")
def pools(body: Json = BODY) -> Json:
    pool.submit(tool.carried(in_pool)).result()
    return {}


def afterwards() -> None:
    with tool.span("afterwards"):
        pass


@app.post("/background")
@decorated("POST /background")
def background(tasks: BackgroundTasks, body: Json = BODY) -> Json:
    tasks.add_task(tool.carried(afterwards))
    return {}


@app.post("/jobs")
@decorated("POST /jobs")
def ask_for_job(request: Request, body: Json = BODY) -> Json:
    with identified(request):
        jobs.put(tool.carrier())
    return {}


def work() -> None:
    """Stand in for a job's worker: a thread without the request's context."""
    while True:
        carrier = jobs.get()
        threading.Event().wait(0.2)
        with tool.job(carrier), tool.span("in-job"):
            pass


threading.Thread(target=work, daemon=True).start()


@app.post("/votes")
def vote(body: Json = BODY) -> Json:
    tool.feedback(body["trace_id"])
    return {}
