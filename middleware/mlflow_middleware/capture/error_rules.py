"""The option ``error_when``: rules that make a response an error, regardless of its status."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple
from urllib.parse import unquote

from mlflow_middleware._internal.guard import report
from mlflow_middleware.capture import strict_json
from mlflow_middleware.capture.fields import look_up
from mlflow_middleware.capture.following import GRPC_WEB, End
from mlflow_middleware.capture.long_runs import LongRuns
from mlflow_middleware.capture.redaction import MAX_ATTRIBUTE, Redactor
from mlflow_middleware.exchange import Exchange
from mlflow_middleware.identity import clean_text

MAX_OBJECTS = 1000
"""Maximum number of objects of a response, such as the events of a stream, that are examined."""

_MAX_LOOKS = 20
"""Maximum number of places in the end of a long response that are examined, the last ones."""

_PLAIN_KEY = re.compile(r"(?!\d+$)[\w-]+", re.ASCII)
"""A key that every encoder writes unescaped; an index does not appear in JSON at all."""

_BASE64 = re.compile(rb"[A-Za-z0-9+/]+={0,2}")

_TRAILERS = 0x80
"""The flag of a gRPC-web frame with trailers instead of a message."""

_MAX_TRAILERS = 16 * 1024
"""Bytes at the end of a long body that are searched for trailers; gRPC's own libraries allow 8 KiB."""


class Failure(NamedTuple):
    """The reason why a response is an error.

    Attributes:
        type: A low-cardinality value for ``error.type``.
        message: A message for people.
    """

    type: str
    message: str


class Rule(NamedTuple):
    """A rule that makes a response an error.

    Attributes:
        written: The rule as written in the option.
        decide: Returns the failure, or None. May raise.
        is_possible: Whether the rule may apply: a quick check before the body is parsed.
    """

    written: str
    decide: Callable[[Exchange], Failure | None]
    is_possible: Callable[[Exchange], bool]


def failure_of(exchange: Exchange, rules: Sequence[Rule], redactor: Redactor) -> Failure | None:
    """Return the failure of the first rule that applies to a response; a rule that raises does not apply."""
    for rule in rules:
        try:
            found = rule.decide(exchange)
        except Exception as error:  # the app's own function
            report(f"error_when ({rule.written})", error)
            continue
        if found is not None:
            text = clean_text(redactor.string(found.message[: 4 * MAX_ATTRIBUTE]), MAX_ATTRIBUTE)
            return Failure(clean_text(found.type, 100) or rule.written, text or rule.written)
    return None


def may_fail(exchange: Exchange, rules: Iterable[Rule]) -> bool:
    """Return whether any rule may apply; if not, the response's body need not be parsed."""
    return any(rule.is_possible(exchange) for rule in rules)


def _holds(*marks: str) -> Callable[[Exchange], bool]:
    """Return a check for one of these marks in a response's body; without marks, for any body."""

    def holds(exchange: Exchange) -> bool:
        body = exchange.response_body
        if body is not None and body.follower is not None:
            return True
        kept = body.kept if body else b""
        is_readable = not exchange.response_encoding and marks
        return bool(kept) and (not is_readable or any(mark.encode() in kept for mark in marks))

    return holds


# --- rules ---


def of_function(function: Callable[[Exchange], object], written: str) -> Rule:
    """Return a rule for the app's function: a true result is a failure; if it is text, it is the message."""

    def decide(exchange: Exchange) -> Failure | None:
        found = function(exchange)
        return Failure("error_when", found if isinstance(found, str) else written) if found else None

    return Rule(written, decide, lambda exchange: True)


def of_path(path: str) -> Rule:
    """Return a rule for a path into the response, such as ``body.errors``: a true value there is a failure."""
    inner = path.removeprefix("body.")

    def decide(exchange: Exchange) -> Failure | None:
        for value in _objects(exchange, inner):
            if found := look_up(value, inner):
                return Failure(path, _message(found) or path)
        return None

    return Rule(path, decide, _holds(*list(filter(_PLAIN_KEY.fullmatch, inner.split(".")))[-1:]))


def _message(found: Any) -> str:
    """Return the readable message in an error; empty for none."""
    if isinstance(found, list):
        return next(filter(None, map(_message, found[:MAX_OBJECTS])), "")
    if isinstance(found, dict):
        return next((text for key in ("message", "detail", "text", "error") if (text := _message(found.get(key)))), "")
    return found if isinstance(found, str) else ""


def _objects(exchange: Exchange, path: str) -> Iterator[Any]:
    """Yield a response, and its objects if it is a stream or a batch; of a long one first the path in its end."""
    outputs = exchange.outputs
    follower = exchange.response_body.follower if exchange.response_body else None
    if isinstance(follower, LongRuns) and isinstance(outputs, dict):
        for end in _ends(follower.end.decode("utf-8", "replace"), path.split(".")):
            yield {**outputs, **end}
    yield outputs
    for each in outputs[:MAX_OBJECTS] if isinstance(outputs, list) else ():
        is_event = isinstance(each, dict) and each.keys() == {"event", "data"}
        yield each["data"] if is_event else each


def _ends(text: str, keys: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield candidate objects for the tail of a JSON text, from the last key on; only the right depth parses."""
    *outer, last = map(json.dumps, keys)
    around = "".join(f"{{{key}:" for key in outer)
    for match in list(re.finditer(rf"{re.escape(last)}\s*:", text))[-_MAX_LOOKS:]:
        try:
            yield strict_json.parsed(f"{around}{{{text[match.start() :]}")
        except ValueError:
            continue


def _graphql(exchange: Exchange) -> Failure | None:
    """Find the errors of GraphQL (https://spec.graphql.org/October2021/#sec-Errors)."""
    for value in _objects(exchange, "errors"):
        errors = value.get("errors") if isinstance(value, dict) else None
        if isinstance(errors, list) and errors:
            code = look_up(errors[0], "extensions.code")
            return Failure(code if isinstance(code, str) else "graphql", _message(errors) or "GraphQL errors")
    return None


def _mcp(exchange: Exchange) -> Failure | None:
    """Find a JSON-RPC error (https://www.jsonrpc.org/specification#error_object) or an MCP tool's error result."""
    for batch in _objects(exchange, "result.isError"):
        for value in batch[:MAX_OBJECTS] if isinstance(batch, list) else [batch]:
            if not isinstance(value, dict) or value.get("jsonrpc") != "2.0":
                continue
            if isinstance(error := value.get("error"), dict):
                return Failure(str(error.get("code", "mcp")), _message(error) or "JSON-RPC error")
            if look_up(value, "result.isError") is True:
                return Failure(
                    "tool_error", _message(look_up(value, "result.content")) or "the tool's result is an error"
                )
    return None


def _grpc_web(exchange: Exchange) -> Failure | None:
    """Find a gRPC status other than OK (https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-WEB.md)."""
    trailers = exchange.response_headers
    if "grpc-status" not in trailers and _is_grpc_web(exchange):
        trailers = _trailers_of(exchange)
    status = trailers.get("grpc-status", "0").strip()
    if status == "0":
        return None
    name = _GRPC_CODES.get(status, status)
    return Failure(name, unquote(trailers.get("grpc-message", "")) or f"gRPC status {name}")


def _is_grpc_web(exchange: Exchange) -> bool:
    return exchange.response_type.lower().startswith(GRPC_WEB)


def _trailers_of(exchange: Exchange) -> dict[str, str]:
    """Return the trailers in a body, which are its last frame."""
    body = exchange.response_body
    if body is None:
        return {}
    is_text = exchange.response_type.lower().startswith(f"{GRPC_WEB}-text")
    if isinstance(body.follower, End):
        return _last_frame(body.follower.after(body.kept), body.size, is_text)
    data = _from_base64(body.kept) if is_text else body.kept
    place = 0
    while place + 5 <= len(data):
        end = place + 5 + int.from_bytes(data[place + 1 : place + 5], "big")
        if data[place] & _TRAILERS:
            return _fields(data[place + 5 : end])
        place = end
    return {}


def _last_frame(data: bytes, size: int, is_text: bool) -> dict[str, str]:
    """Return the trailers in the last bytes of a body of this size, without known frame boundaries."""
    if is_text:  # four characters encode three bytes
        data = _from_base64(data[(len(data) - size) % 4 :])
    for place in range(len(data) - 5, max(-1, len(data) - _MAX_TRAILERS), -1):
        if data[place] & _TRAILERS and place + 5 + int.from_bytes(data[place + 1 : place + 5], "big") == len(data):
            return _fields(data[place + 5 :])
    return {}


def _fields(data: bytes) -> dict[str, str]:
    pairs = (line.partition(":") for line in data.decode("latin-1").splitlines())
    return {name.strip().lower(): value.strip() for name, _, value in pairs}


def _from_base64(data: bytes) -> bytes:
    """Decode concatenated base64 texts, each with its own padding; the last may be cut."""
    pieces = (piece[: len(piece) // 4 * 4] for piece in _BASE64.findall(data))
    return b"".join(map(base64.b64decode, pieces))


_GRPC_CODES = {
    "1": "CANCELLED",
    "2": "UNKNOWN",
    "3": "INVALID_ARGUMENT",
    "4": "DEADLINE_EXCEEDED",
    "5": "NOT_FOUND",
    "6": "ALREADY_EXISTS",
    "7": "PERMISSION_DENIED",
    "8": "RESOURCE_EXHAUSTED",
    "9": "FAILED_PRECONDITION",
    "10": "ABORTED",
    "11": "OUT_OF_RANGE",
    "12": "UNIMPLEMENTED",
    "13": "INTERNAL",
    "14": "UNAVAILABLE",
    "15": "DATA_LOSS",
    "16": "UNAUTHENTICATED",
}
"""See https://grpc.io/docs/guides/status-codes/."""

READY = {
    rule.written: rule
    for rule in (
        Rule("graphql", _graphql, _holds('"errors"')),
        Rule("mcp", _mcp, _holds('"error"', '"isError"')),
        Rule(
            "grpc-web", _grpc_web, lambda exchange: _is_grpc_web(exchange) or "grpc-status" in exchange.response_headers
        ),
    )
}
"""The named rules."""
