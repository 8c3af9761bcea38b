"""The test app on FastAPI."""

import mlflow
from fastapi import FastAPI, Request, Response
from fastapi.responses import PlainTextResponse, StreamingResponse

from mlflow_middleware.fastapi import TraceMiddleware, feedback_router
from tests.apps import behaviour

app = FastAPI()
app.add_middleware(TraceMiddleware, **behaviour.OPTIONS)
app.include_router(feedback_router(**behaviour.FEEDBACK_OPTIONS))


@app.api_route("/sync/chats/{chat_id}", methods=["GET", "POST"])
def chat_sync(chat_id: str) -> dict[str, object]:
    return behaviour.answer(chat_id)


@app.api_route("/async/chats/{chat_id}", methods=["GET", "POST"])
async def chat_async(chat_id: str) -> dict[str, object]:
    return await behaviour.answer_async(chat_id)


@app.get("/fail")
def fail() -> None:
    behaviour.fail()


@app.get("/annotate")
def say() -> dict[str, object]:
    return behaviour.say()


@app.get("/outbound")
async def outbound() -> dict[str, str]:
    return behaviour.outbound()


@app.get("/log")
async def log() -> PlainTextResponse:
    return PlainTextResponse(behaviour.log_line())


@app.get("/stream")
def stream() -> StreamingResponse:
    return StreamingResponse(behaviour.chunks(), media_type="text/plain")


@app.post("/echo")
async def echo(request: Request) -> Response:
    return Response(await request.body(), media_type=request.headers.get("content-type"))


@app.post("/unread")
async def unread() -> Response:
    return Response(b"{}", media_type="application/json")


@app.get("/events")
def events() -> StreamingResponse:
    return StreamingResponse(behaviour.events(), media_type="text/event-stream")


@app.get("/ticks")
def ticks() -> StreamingResponse:
    return StreamingResponse(behaviour.ticks(), media_type="text/event-stream")


@app.get("/status/{code}")
def status(code: int) -> Response:
    return Response(status_code=code)


@app.get("/health")
def health() -> dict[str, object]:
    with mlflow.start_span("health"):
        return {}
