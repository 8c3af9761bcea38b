"""A Flask app, also as a factory."""

from __future__ import annotations

from flask import Flask

app = Flask(__name__)


@app.get("/chats/<chat_id>")
def chat(chat_id: str) -> dict[str, str]:
    return {"chat": chat_id}


@app.get("/health")
def health() -> str:
    return "well"


def create_app() -> Flask:
    return app
