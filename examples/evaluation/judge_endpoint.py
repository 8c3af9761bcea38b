"""A stand-in for a judge's model: an endpoint with OpenAI's API that judges by one fixed rule.

An answer is helpful unless it admits to knowing nothing. `score` starts it if ``OPENAI_BASE_URL`` names no model;
run by itself, it serves an AI Gateway::

    python -m evaluation.judge_endpoint 8001        # in examples/; its address is http://127.0.0.1:8001/v1
"""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any


class Judge(BaseHTTPRequestHandler):
    """Answers ``POST /v1/chat/completions``."""

    def do_POST(self) -> None:
        """Judge the answer in the last message, in the JSON format that MLflow's judges request."""
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        is_helpful = "know nothing" not in asked["messages"][-1]["content"]
        rationale = "It tells what was asked." if is_helpful else "It says that it does not know."
        body = json.dumps(_completion(asked["model"], {"result": is_helpful, "rationale": rationale})).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""


def _completion(model: str, verdict: dict[str, object]) -> dict[str, Any]:
    message = {"role": "assistant", "content": json.dumps(verdict)}
    return {
        "id": "judged",
        "object": "chat.completion",
        "created": 0,
        "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    }


def start(port: int = 0) -> str:
    """Serve in a thread, by default on a free port; return the address."""
    server = ThreadingHTTPServer(("127.0.0.1", port), Judge)
    Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}/v1"


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Judge).serve_forever()
