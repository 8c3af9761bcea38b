"""A Flask app with chats over WebSockets, by flask-sock and by Flask-SocketIO."""

import os

import mlflow
from flask import Flask, request
from flask.typing import ResponseReturnValue
from flask_sock import Sock
from flask_socketio import SocketIO, emit
from simple_websocket import ConnectionClosed, Server

from mlflow_middleware.exchange import Exchange
from mlflow_middleware.flask import MLflowMiddleware
from mlflow_middleware.identity import Identity

app = Flask(__name__)
sock = Sock(app)
socketio = SocketIO(app, async_mode="threading", async_handlers=False)


def identify(exchange: Exchange) -> Identity:
    """Return the user whom Flask knows."""
    return Identity(user_id=request.headers.get("X-Login"))


MLflowMiddleware(app, identify=identify if os.environ.get("IDENTIFY") else None)


def answer(question: str) -> str:
    """Take one turn of a chat."""
    with mlflow.start_span("answer"):
        return question.upper()


@app.get("/health")
def health() -> ResponseReturnValue:
    return "fine"


@app.get("/after")
def after() -> ResponseReturnValue:
    return "fine"


@sock.route("/chat")
def chat(ws: Server) -> None:
    while True:
        question = ws.receive()
        if question == "break":
            raise ConnectionClosed(1011)
        ws.send(answer(question))


@socketio.on("ask")
def asked(question: str) -> None:
    emit("answer", answer(question))


if __name__ == "__main__":
    from werkzeug.serving import run_simple

    run_simple("127.0.0.1", int(os.environ["PORT"]), app, threaded=True)
