"""The test app on Flask."""

import mlflow
from flask import Flask, Response, jsonify, request
from flask.typing import ResponseReturnValue

from mlflow_middleware.flask import MLflowMiddleware, feedback_blueprint
from tests.apps import behaviour

app = Flask(__name__)
app.config["MLFLOW_MIDDLEWARE"] = {name.upper(): value for name, value in behaviour.OPTIONS.items()}
MLflowMiddleware(app)
app.register_blueprint(feedback_blueprint(**behaviour.FEEDBACK_OPTIONS))


@app.route("/sync/chats/<chat_id>", methods=["GET", "POST"])
def chat_sync(chat_id: str) -> ResponseReturnValue:
    return jsonify(behaviour.answer(chat_id))


@app.route("/async/chats/<chat_id>", methods=["GET", "POST"])
async def chat_async(chat_id: str) -> ResponseReturnValue:
    return jsonify(await behaviour.answer_async(chat_id))


@app.get("/fail")
def fail() -> ResponseReturnValue:
    behaviour.fail()
    return ""


@app.get("/annotate")
def say() -> ResponseReturnValue:
    return jsonify(behaviour.say())


@app.get("/outbound")
def outbound() -> ResponseReturnValue:
    return jsonify(behaviour.outbound())


@app.get("/log")
def log() -> ResponseReturnValue:
    return behaviour.log_line()


@app.get("/stream")
def stream() -> ResponseReturnValue:
    return Response(behaviour.chunks(), mimetype="text/plain")


@app.post("/echo")
def echo() -> ResponseReturnValue:
    return Response(request.get_data(), content_type=request.content_type)


@app.post("/unread")
def unread() -> ResponseReturnValue:
    return jsonify({})


@app.get("/events")
def events() -> ResponseReturnValue:
    return Response(behaviour.events(), mimetype="text/event-stream")


@app.get("/ticks")
def ticks() -> ResponseReturnValue:
    return Response(behaviour.ticks(), mimetype="text/event-stream")


@app.get("/status/<int:code>")
def status(code: int) -> ResponseReturnValue:
    return "", code


@app.get("/health")
def health() -> ResponseReturnValue:
    with mlflow.start_span("health"):
        return jsonify({})
