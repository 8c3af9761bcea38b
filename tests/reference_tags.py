# ruff: noqa: E501 - a row of a table is a line
"""The reference page of the names in a trace: each one that the code writes, with its meaning."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import NamedTuple

from mlflow_middleware._internal.option_fields import Options
from tests.servers import ROOT

TAGS_PAGE = ROOT / "docs" / "tags-and-attributes.md"

MLFLOW, OPENTELEMETRY, OURS = "MLflow", "OpenTelemetry", "ours"


class Name(NamedTuple):
    """One name in a trace.

    Attributes:
        name: The name.
        meaning: Its content.
        present: When it is present.
        source: The convention that it comes from.
    """

    name: str
    meaning: str
    present: str
    source: str


def _deployment_tags() -> list[Name]:
    of_option: dict[str, str] = Options.model_fields["deployment_tags"].get_default()
    meaning = "the variable `{}`, or [the platform's own](deployment.md#tags-without-a-variable)"
    return [Name(tag, meaning.format(variable), "one of them is set", OURS) for tag, variable in of_option.items()]


TAGS = [
    Name("mlflow.traceName", "the name of the root span: `POST /chats/{chat_id}`, or a job's", "always", MLFLOW),
    Name("client_request_id", "the request id, at any length", "always, but in a job without a request", OURS),
    Name("mlflow.trace.session", "the session id", "it is known", OURS),
    Name("mlflow.trace.user", "the user id, or its pseudonym", "it is known", OURS),
    Name("http.route", "the route's template", "a route took the request", OURS),
    Name("http.status_code", "the status, as text", "the request was answered; a job has none", OURS),
    *_deployment_tags(),
    Name("gen_ai.response.model", "the models that answered, with commas between several", "one is known", OURS),
]
"""Of the trace."""

METADATA = [
    Name("mlflow.trace.session", "the session id, for MLflow's session view; 250 characters", "it is known", MLFLOW),
    Name("mlflow.trace.user", "the user id, or its pseudonym; 250 characters", "it is known", MLFLOW),
    Name("mlflow.traceInputs", "the inputs, cut to 250 characters", "always", MLFLOW),
    Name("mlflow.traceOutputs", "the outputs, cut to 250 characters", "always", MLFLOW),
    Name("mlflow.trace.tokenUsage", "the tokens of all spans, as JSON", "tokens were reported", MLFLOW),
    Name("mlflow.trace.cost", "the cost of all spans in US dollars, as JSON", "[it is known](cost.md#which-cost-is-known)", MLFLOW),
    Name("mlflow.trace.sizeStats", "number of spans, and the sizes of their JSON", "always", MLFLOW),
    Name("mlflow.trace.sizeBytes", "the size of the trace's JSON", "always", MLFLOW),
    Name("mlflow.trace_schema.version", "`3`, the version of the format", "always", MLFLOW),
    Name("mlflow.sourceRun", "the run that is active where the trace begins", "there is one", MLFLOW),
    Name("mlflow.modelId", "the logged model that `mlflow.set_active_model()` chose", "there is one", MLFLOW),
    Name("mlflow.user", "the operating system's user", "always", MLFLOW),
    Name("mlflow.source.name", "the program", "always", MLFLOW),
    Name("mlflow.source.type", "`LOCAL`, `NOTEBOOK` or `JOB`", "always", MLFLOW),
    *[
        Name(f"mlflow.source.git.{each}", f"the {meaning} of the program's git repository", "full MLflow is installed, and finds one", MLFLOW)
        for each, meaning in (("branch", "branch"), ("commit", "commit"), ("repoURL", "address"))
    ],
    Name("mlflow_middleware.filled", "when the request was, as milliseconds since the epoch", "a caller sent no info of its trace, [so that it was stored here](beside-other-tools.md#two-services)", OURS),
]  # fmt: skip
"""Of the trace."""

_A_REQUEST, _A_STREAM, _A_MODEL = "always; not in a job", "the answer is a stream", "a language model answered"
_TOKENS = "an answer reports tokens, and no span inside does"

ATTRIBUTES = [
    Name("mlflow.spanType", "`CHAIN`, or option `span_type`", "always", MLFLOW),
    Name("mlflow.spanLogLevel", "20 (INFO), or 40 (ERROR) after an exception", "always", MLFLOW),
    Name("mlflow.spanInputs", "[the inputs](what-a-trace-holds.md#inputs-and-outputs)", "they are captured", MLFLOW),
    Name("mlflow.spanOutputs", "[the outputs](what-a-trace-holds.md#inputs-and-outputs)", "they are captured", MLFLOW),
    Name("mlflow.traceRequestId", "the trace id", "always", MLFLOW),
    Name("mlflow.experimentId", "the experiment's id", "the app uses MLflow's functions inside", MLFLOW),
    Name("http.request.method", "the method, or `_OTHER`", _A_REQUEST, OPENTELEMETRY),
    Name("http.request.method_original", "the method as it was sent", "it is none of HTTP's", OPENTELEMETRY),
    Name("http.route", "the route's template", "a route took the request", OPENTELEMETRY),
    Name("http.response.status_code", "the status", "the request was answered", OPENTELEMETRY),
    Name("url.scheme", "`http` or `https`", _A_REQUEST, OPENTELEMETRY),
    Name("url.path", "the path, without secrets; 1,024 characters", "always, but with `metadata_only` the route", OPENTELEMETRY),
    Name("url.query", "the query string, without secrets; 1,024 characters", "there is one, and it is captured", OPENTELEMETRY),
    Name("server.address", "the host in the request", "it is known", OPENTELEMETRY),
    Name("server.port", "its port", "it is known", OPENTELEMETRY),
    Name("client.address", "the client's IP address", "option `client_address` allows it", OPENTELEMETRY),
    Name("network.peer.address", "the proxy's IP address", "one of `trusted_proxies` sent the client's", OPENTELEMETRY),
    Name("network.protocol.version", "`1.1`, `2`, …", "the server provides it", OPENTELEMETRY),
    Name("user_agent.original", "the `User-Agent`", "option `capture_user_agent` allows it", OPENTELEMETRY),
    Name("http.request.header.<name>", "a request header, without secrets", "option `capture_headers` names it", OPENTELEMETRY),
    Name("http.request.body.size", "bytes that the app read", "there were some", OPENTELEMETRY),
    Name("http.response.body.size", "bytes that were sent", "there were some", OPENTELEMETRY),
    Name("http.request.body.cut", "true", "the inputs are not all of the body", OURS),
    Name("http.response.body.cut", "true", "the outputs are not all of the body", OURS),
    Name("http.client_disconnected", "true", "the client left before the end", OURS),
    Name("http.response.chunks", "pieces that were sent", _A_STREAM, OURS),
    Name("http.response.time_to_first_byte", "seconds", _A_STREAM, OURS),
    Name("http.response.time_to_last_byte", "seconds", _A_STREAM, OURS),
    Name("error.type", "the exception's class, the type that an `error_when` rule gives, or the status", "the request failed; also with any 5xx", OPENTELEMETRY),
    Name("session.id", "the session id", "it is known", OPENTELEMETRY),
    Name("gen_ai.conversation.id", "the session id", "it is known", OPENTELEMETRY),
    Name("user.id", "the user id, or its pseudonym", "it is known", OPENTELEMETRY),
    Name("user.hash", "the pseudonym", "option `user_id_hmac_key` is set", OPENTELEMETRY),
    Name("deployment.environment.name", "the tag `environment`", "there is one", OPENTELEMETRY),
    Name("service.version", "the tag `app_version`", "there is one", OPENTELEMETRY),
    Name("mlflow.llm.model", "the model, by which MLflow finds the price", _A_MODEL, MLFLOW),
    Name("mlflow.llm.provider", "the provider, as MLflow names it: `bedrock`", _A_MODEL, MLFLOW),
    Name("mlflow.llm.cost", "the cost in US dollars, as JSON", "[it is known](cost.md#which-cost-is-known)", MLFLOW),
    Name("mlflow.chat.tokenUsage", "tokens, as JSON", _TOKENS, MLFLOW),
    Name("gen_ai.request.model", "the model in the request", _A_MODEL, OPENTELEMETRY),
    Name("gen_ai.response.model", "the model that answered", _A_MODEL, OPENTELEMETRY),
    Name("gen_ai.provider.name", "the provider, as OpenTelemetry names it: `aws.bedrock`", _A_MODEL, OPENTELEMETRY),
    Name("gen_ai.usage.input_tokens", "tokens of the input, cached ones included", _TOKENS, OPENTELEMETRY),
    Name("gen_ai.usage.output_tokens", "tokens of the output", _TOKENS, OPENTELEMETRY),
    Name("gen_ai.usage.cache_read.input_tokens", "tokens of the input that came from a cache", _TOKENS, OPENTELEMETRY),
    Name("gen_ai.usage.cache_creation.input_tokens", "tokens of the input that went into a cache", _TOKENS, OPENTELEMETRY),
    Name("gen_ai.response.time_to_first_chunk", "seconds, as `http.response.time_to_first_byte`: until the first event, even if that has no text", "a language model's stream", OPENTELEMETRY),
    Name("otel.trace_id", "the trace of the app's own OpenTelemetry", "there is a span around the request", OURS),
    Name("otel.span_id", "its span", "there is a span around the request", OURS),
    Name("sentry.trace_id", "Sentry's trace", "Sentry traces the request", OURS),
    Name("sentry.span_id", "Sentry's span", "Sentry traces the request", OURS),
    Name("dd.trace_id", "Datadog's trace, in hexadecimal", "Datadog traces the request", OURS),
    Name("dd.span_id", "Datadog's span", "Datadog traces the request", OURS),
    Name("mlflow.traceTag.<tag>", "a tag of the trace", "the spans were sent before the info, at an exit, or to a collector", MLFLOW),
    Name("mlflow_middleware.cut", "the names of attributes that were cut", "[a server refused the trace's size](limits.md#of-the-server)", OURS),
]  # fmt: skip
"""Of the root span."""

EVENT = [
    Name("exception.type", "the exception's class", "always", OPENTELEMETRY),
    Name("exception.message", "its message, without secrets", "always, but with `content=\"none\"`", OPENTELEMETRY),
    Name("exception.stacktrace", "its stack trace, without secrets", "always, but with `content=\"none\"`", OPENTELEMETRY),
]  # fmt: skip
"""Of each event `exception` of the root span."""

ELSEWHERE = {
    "mlflow.trace_id",  # set on other tools' spans
    "mlflow_middleware.joined",  # on the way to the server only, like the next one
    "mlflow_middleware.continued",
    "mlflow_middleware.trace_info",  # in files of the spool
    "mlflow.artifactLocation",  # read from traces that a server has stored
}
"""Names in the code that a request's stored trace does not have."""

_INTRODUCTION = """# Tags and attributes

Each name that the middleware gives to the trace of a request or a job. Your own tags (`tags`, `annotate`) and those that
MLflow's functions set inside a request come in addition. "Ours" means that no other project defines the name. How the parts belong
together is in [what a trace holds](what-a-trace-holds.md).

"""


def page() -> str:
    """Return the page: each name, its content, when it is present, and its source."""
    tables = (
        ("Tags of the trace", "Traces are searched by them: ``tags.`http.route` = '/chats/{chat_id}'``.\n\n", TAGS),
        ("Metadata of the trace", "Set once, and shown by MLflow's session view and columns.\n\n", METADATA),
        ("Attributes of the root span", "", ATTRIBUTES),
        ("The root span's event `exception`", "One for each exception that the app raised or handed to `annotate`.\n\n", EVENT),
    )  # fmt: skip
    return _INTRODUCTION + "\n".join(f"## {title}\n\n{text}{_table(names)}" for title, text, names in tables)


def _table(names: list[Name]) -> str:
    rows = [f"| `{each.name}` | {each.meaning} | {each.present} | {each.source} |" for each in names]
    return "\n".join(["| name | holds | present if | whose |", "| --- | --- | --- | --- |", *rows]) + "\n"


# --- what the code has ---

_ROOMS = ("trace", "capture", "request", "mlflow_bridge", "delivery")
_NO_NAMES = {"mlflow_bridge/names.py", "mlflow_bridge/install.py", "request/asgi_response.py", "request/leaving.py"}
"""Modules with dotted texts of another kind: Python's names and ASGI's messages."""
_NO_NAMES |= {"capture/spans.py"}  # set by other tools on the app's spans
_FIRST = "mlflow http gen_ai otel sentry dd url server client network user_agent user session error mlflow_middleware"
_NAME = re.compile(rf"({_FIRST} exception service deployment)".replace(" ", "|") + r"(\.[A-Za-z_]+)+|client_request_id")
_MODULES = re.compile(r"mlflow\.(tracing|tracking|store|environment_variables)\b.*|mlflow_middleware\.delivery")


def names_in_the_code() -> Iterator[str]:
    """Yield the texts, in the rooms that describe a trace, that look like a name in one."""
    folder = ROOT / "middleware" / "mlflow_middleware"
    for file in sorted(path for room in _ROOMS for path in (folder / room).rglob("*.py")):
        if file.relative_to(folder).as_posix() not in _NO_NAMES:
            nodes = list(ast.walk(ast.parse(file.read_text())))
            texts = [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]
            yield from (text for text in texts if _NAME.fullmatch(text) and not _MODULES.fullmatch(text))
            if file.is_relative_to(folder / "trace"):
                yield from _keys(nodes)


def _keys(nodes: list[ast.AST]) -> Iterator[str]:
    """Yield the texts that are keys of a mapping; in the room that describes a trace, each is a name."""
    for node in nodes:
        keys = node.keys if isinstance(node, ast.Dict) else []
        if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store):
            keys = [node.slice]
        yield from (each.value for each in keys if isinstance(each, ast.Constant) and isinstance(each.value, str))
