"""A Flask app with a route for Prometheus.

::

    export MLFLOW_TRACKING_URI=http://127.0.0.1:5000 MLFLOW_EXPERIMENT_NAME=chats
    gunicorn metrics_flask:app
"""

from flask import Flask

from mlflow_middleware.flask import MLflowMiddleware, metrics_blueprint

app = Flask(__name__)
MLflowMiddleware(app)
app.register_blueprint(metrics_blueprint())


@app.get("/chats/<chat_id>")
def chat(chat_id: str) -> dict[str, str]:
    """Show a chat."""
    return {"chat": chat_id}


@app.get("/health")
def health() -> dict[str, str]:
    """Answer the health check; not traced."""
    return {"status": "ok"}
