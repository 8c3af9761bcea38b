"""A Starlette app with plain routes, without FastAPI."""

from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Host, Mount, Route

from mlflow_middleware.fastapi import TraceMiddleware, feedback_route


async def answer(request: Request) -> PlainTextResponse:
    return PlainTextResponse("fine")


class Chat(HTTPEndpoint):
    """A class as an endpoint."""

    async def get(self, request: Request) -> PlainTextResponse:
        return await answer(request)


app = Starlette(
    routes=[
        Route("/health", answer),
        feedback_route("/api"),
        Route("/plain/{number:int}", answer),
        Route("/class/{chat_id}", Chat),
        Mount("/api", routes=[Mount("/v2", routes=[Route("/{word}", answer)])]),
        Host("{tenant}.example", app=Starlette(routes=[Route("/of/{thing}", answer)])),
    ],
    middleware=[Middleware(TraceMiddleware)],
)
