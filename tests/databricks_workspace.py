"""A stand-in for a Databricks workspace: it answers the requests of tracing, and keeps their contents.

It was written from the requests that MLflow's own client sends; no real workspace was available. Every request must
carry the token, experiments have workspace paths, a trace's spans are uploaded to a signed address, and spans by OTLP
are rejected.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

UPLOAD = "/bucket/"
"""The path of signed addresses: storage, which knows no token."""


class Answer(Exception):
    """An answer to a request, if it is not a plain 200."""

    def __init__(self, status: int, code: str, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error_code": code, "message": message}
        self.headers = headers or {}


@dataclass
class Trouble:
    """A failure of some requests.

    Attributes:
        path: A part of the paths of these requests.
        answer: The answer that they get.
        times: The number of failures still to come.
        met: The number of failures so far.
    """

    path: str
    answer: Answer
    times: float
    met: int = 0


@dataclass
class Workspace:
    """The stand-in, and the data that it received.

    Attributes:
        token: The token that every request must present.
        url: Its address, the ``DATABRICKS_HOST``.
        experiments: Experiment name -> id.
        infos: Trace id -> its trace info.
        spans: Trace id -> its uploaded spans.
        attachments: Trace id -> the files that its inputs and outputs refer to.
        requests: Method and path of every request, in order.
        troubles: The current failures.
    """

    token: str
    url: str
    experiments: dict[str, str] = field(default_factory=dict)
    infos: dict[str, dict[str, Any]] = field(default_factory=dict)
    spans: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    attachments: dict[str, list[bytes]] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    troubles: list[Trouble] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def fail(
        self,
        status: int,
        code: str,
        path: str = "/mlflow/traces",
        times: float = float("inf"),
        headers: dict[str, str] | None = None,
    ) -> Trouble:
        """Answer requests whose path contains ``path`` with an error, this many times."""
        trouble = Trouble(path, Answer(status, code, f"the workspace says {code}", headers), times)
        self.troubles.append(trouble)
        return trouble

    def of_request(self, request_id: str) -> dict[str, Any] | None:
        """Return the info of the trace with this client request id, once its spans have arrived, too."""
        found = [info for info in list(self.infos.values()) if info.get("client_request_id") == request_id]
        return found[0] if found and found[0]["trace_id"] in self.spans else None

    def take(self, method: str, target: str, authorization: str | None, body: bytes) -> dict[str, Any]:
        """Answer one request."""
        parts = urlsplit(target)
        with self.lock:
            self.requests.append(f"{method} {parts.path}")
            for trouble in self.troubles:
                if trouble.path in parts.path and trouble.times > 0:
                    trouble.times -= 1
                    trouble.met += 1
                    raise trouble.answer
            if parts.path.startswith(UPLOAD):
                return self._upload(method, parts.path, body)
            if parts.path == "/.well-known/databricks-config":  # sent by clients before they sign in
                raise Answer(404, "ENDPOINT_NOT_FOUND", "No API found")
            if authorization != f"Bearer {self.token}":
                raise Answer(401, "UNAUTHENTICATED", "Credential was not sent or was of an unsupported type")
            query = {name: values[0] for name, values in parse_qs(parts.query).items()}
            return self._api(method, parts.path, query, json.loads(body) if body else {})

    def _api(self, method: str, path: str, query: dict[str, str], body: dict[str, Any]) -> dict[str, Any]:
        if path.startswith("/api/2.0/mlflow/experiments/"):
            return self._experiments(f"{method} {path.rpartition('/')[2]}", query, body)
        if (method, path) == ("POST", "/api/3.0/mlflow/traces"):
            return self._start_trace(body)
        if (method, path) == ("POST", "/api/3.0/mlflow/traces/search"):
            return self._search(body)
        *_, traces, trace_id, last = ["", "", *path.split("/")]
        if (method, traces, last) == ("GET", "traces", "credentials-for-data-upload"):
            if trace_id not in self.infos:
                raise Answer(404, "RESOURCE_DOES_NOT_EXIST", f"Trace {trace_id} does not exist")
            place = f"{self.url}{UPLOAD}{trace_id}/{query.get('path', 'traces.json')}"
            signed = {"type": "AWS_PRESIGNED_URL", "signed_uri": place, "headers": []}
            return {"credential_info": signed}
        if (method, traces, trace_id) == ("GET", "mlflow", "traces") and last in self.infos:
            return {"trace": {"trace_info": self.infos[last]}}
        if (method, last) == ("POST", "delete-traces"):
            found = [self.infos.pop(each) for each in body["request_ids"] if each in self.infos]
            return {"traces_deleted": len(found)}
        raise Answer(404, "ENDPOINT_NOT_FOUND", f"No API found for '{method} {path}'")

    def _experiments(self, what: str, query: dict[str, str], body: dict[str, Any]) -> dict[str, Any]:
        names = {experiment_id: name for name, experiment_id in self.experiments.items()}
        if what == "POST create":
            if not body["name"].startswith("/"):
                raise Answer(400, "INVALID_PARAMETER_VALUE", f"Got an invalid experiment name '{body['name']}'")
            if body["name"] in self.experiments:
                raise Answer(400, "RESOURCE_ALREADY_EXISTS", f"Node named '{body['name']}' already exists")
            self.experiments[body["name"]] = f"39{len(self.experiments):014d}"
            return {"experiment_id": self.experiments[body["name"]]}
        name = query["experiment_name"] if what == "GET get-by-name" else names.get(query.get("experiment_id", ""), "")
        if name not in self.experiments:
            raise Answer(404, "RESOURCE_DOES_NOT_EXIST", f"Node {name} does not exist.")
        experiment = {"experiment_id": self.experiments[name], "name": name, "lifecycle_stage": "active"}
        return {"experiment": experiment}

    def _start_trace(self, body: dict[str, Any]) -> dict[str, Any]:
        info = body["trace"]["trace_info"]
        experiment_id = info["trace_location"]["mlflow_experiment"]["experiment_id"]
        if experiment_id not in self.experiments.values():
            raise Answer(404, "RESOURCE_DOES_NOT_EXIST", f"Node ID {experiment_id} does not exist.")
        place = f"dbfs:/databricks/mlflow-tracking/{experiment_id}/{info['trace_id']}/artifacts"
        self.infos[info["trace_id"]] = info
        return {"trace": {"trace_info": {**info, "tags": {**info["tags"], "mlflow.artifactLocation": place}}}}

    def _search(self, body: dict[str, Any]) -> dict[str, Any]:
        """Ignore filters: return all traces of the experiments."""
        wanted = [location["mlflow_experiment"]["experiment_id"] for location in body["locations"]]
        found = self.infos.values()
        return {
            "traces": [info for info in found if info["trace_location"]["mlflow_experiment"]["experiment_id"] in wanted]
        }

    def _upload(self, method: str, path: str, body: bytes) -> dict[str, Any]:
        trace_id, _, name = path.removeprefix(UPLOAD).partition("/")
        if method != "PUT" or trace_id not in self.infos:
            raise Answer(403, "AccessDenied", "the address was not signed for this")
        if name == "traces.json":
            self.spans[trace_id] = json.loads(body)["spans"]
        else:
            self.attachments.setdefault(trace_id, []).append(body)
        return {}


@contextmanager
def workspace(token: str) -> Iterator[Workspace]:
    """Run a stand-in."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # an answer in one packet

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, headers = 200, {}
            try:
                reply = stand_in.take(self.command, self.path, self.headers.get("Authorization"), body)
            except Answer as other:
                status, reply, headers = other.status, other.body, other.headers
            data = json.dumps(reply).encode()
            self.send_response(status)
            for name, value in {**headers, "Content-Type": "application/json", "Content-Length": len(data)}.items():
                self.send_header(name, str(value))
            self.end_headers()
            self.wfile.write(data)

        def handle(self) -> None:
            with contextlib.suppress(ConnectionError):  # a client that has disconnected
                super().handle()

        do_GET = do_POST = do_PUT = do_PATCH = answer  # noqa: N815 - the names that http.server calls

        def log_message(self, format: str, *args: object) -> None:
            """Log nothing."""

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    stand_in = Workspace(token, f"http://127.0.0.1:{listener.server_address[1]}")
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield stand_in
    finally:
        listener.shutdown()
        listener.server_close()
        thread.join()
