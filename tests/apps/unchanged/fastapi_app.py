"""A FastAPI app, also as a factory."""

from __future__ import annotations

from fastapi import FastAPI

app = FastAPI()


@app.get("/chats/{chat_id}")
def chat(chat_id: str) -> dict[str, str]:
    return {"chat": chat_id}


@app.get("/health")
def health() -> str:
    return "well"


def create_app() -> FastAPI:
    return app
