"""See ``deserving``: the app on Flask."""

from flask import Flask, Response, abort, jsonify, request

from mlflow_middleware.flask import MLflowMiddleware
from tests.apps import deserving

app = Flask(__name__)
MLflowMiddleware(app, **deserving.OPTIONS)


@app.post("/do/<what>")
@app.post("/sync/<what>")
def do(what: str) -> Response:
    request.get_data()
    return jsonify(deserving.do(what))


@app.get("/items/<item>")
def item(item: str) -> Response:
    abort(404)


@app.get("/left-out")
def left_out() -> Response:
    return jsonify(deserving.left_out())
