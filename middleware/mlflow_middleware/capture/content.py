"""A body as stored in a trace: parsed by its media type, redacted and bounded."""

from __future__ import annotations

import codecs
import contextlib
import functools
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_plus

from mlflow_middleware._internal.guard import report
from mlflow_middleware.capture import decoding, forms, media_type, multipart, streams, strict_json
from mlflow_middleware.capture.following import End, Folded, Follower, whole_stream
from mlflow_middleware.capture.long_runs import LongRuns
from mlflow_middleware.capture.model_calls import model_in
from mlflow_middleware.capture.redaction import Redactor
from mlflow_middleware.capture.texts import shown_end
from mlflow_middleware.capture.usage import last_usage_of, usage_in, usage_of

MAX_FIELDS = 1000
"""Maximum number of fields that are read of a form, or parameters of a query string."""

_MAX_ANSWERS = 20
"""Maximum number of items of a list that are examined for token usage."""

_MAX_NAME = 200
"""Maximum number of characters kept of a content type or encoding."""

_TEXT = re.compile(r"text/(?!xml).+|application/(javascript|graphql)")  # not XML, in which secrets are not found


@dataclass(slots=True)
class Content:
    """A parsed body.

    Attributes:
        value: A JSON-serializable value, redacted.
        cut: Whether the value lacks a part of the body.
        usage: The token usage in a language model's response, under MLflow's names.
        text: The value's JSON, if the body can be stored unchanged.
        model: The model that the end of the body names, if the value has only the beginning.
    """

    value: Any
    cut: bool
    usage: dict[str, int] | None = None
    text: str | None = None
    model: str | None = None


@dataclass(slots=True)
class _Body:
    """The beginning of a body, with the facts needed to parse it."""

    data: bytes
    size: int
    content_type: str
    cut: bool
    redactor: Redactor

    @property
    def text(self) -> str:
        """The text, without an incomplete character at its end.

        UTF-8, -16 and -32 are detected regardless of the header: in a wrong encoding, no secret would be found.
        """
        for codec in (json.detect_encoding, lambda data: self.codec):
            with contextlib.suppress(UnicodeError):
                return _decode(self.data, codec(self.data), self.cut, "strict").removeprefix("\ufeff")
        return _decode(self.data, "utf-8", self.cut)

    @property
    def codec(self) -> str:
        """The codec of the header's charset; UTF-8 by default."""
        return media_type.codec(self.content_type)

    @property
    def note(self) -> str:
        """The note at the end of a cut text; empty if it is not cut."""
        if not self.cut:
            return ""
        of = f" of {self.size}" if self.size > len(self.data) else ""
        return f" … [cut: {len(self.data)}{of} bytes]"

    def parse(self, text: str) -> Any:
        """Return parsed JSON, or the redacted text if it is not JSON."""
        try:
            return strict_json.parsed(text)
        except ValueError:
            return self.redactor.text(text)


def read(
    data: bytes,
    size: int,
    content_type: str,
    content_encoding: str,
    limit: int,
    redactor: Redactor,
    follower: Follower | None = None,
) -> Content:
    """Parse a body for the trace. It never raises.

    Args:
        data: The beginning of the body.
        size: The size of the whole body, in bytes.
        content_type: The header; empty if missing.
        content_encoding: The header; empty if missing.
        limit: Maximum number of bytes that are read, before and after decompression.
        redactor: The redactor.
        follower: The follower of the rest, if any.
    """
    kind = content_type[:_MAX_NAME]
    unread = {"content_type": kind, "bytes": size}
    try:
        if follower is not None and isinstance(follower, Folded | LongRuns | multipart.Form):
            return _followed(follower, size, kind, redactor)
        decoded = decoding.decoded(data[:limit], content_encoding, limit)
        if decoded is None:
            return Content({**unread, "content_encoding": content_encoding[:_MAX_NAME]}, cut=False)
        kept, cut = decoded
        if (
            cut
            and content_encoding
            and len(data) == size
            and (stream := whole_stream(data, kind, content_encoding, limit))
        ):
            return _folded(stream, redactor)
        cut = cut or min(len(data), limit) < size
        if not kept:
            return Content(unread if cut else None, cut)
        reader = _reader(kind)
        if reader is _json and not cut:
            try:
                return _as_it_is(kept, redactor)
            except ValueError:
                pass
        body = _Body(kept, size, content_type, cut, redactor)
        value, cut = reader(body)
        if follower is not None and isinstance(follower, End) and reader is not _bytes:
            return _with_end(value, _Body(follower.kept, size, content_type, False, redactor), reader)
        return Content(value, cut, _usage(value))
    except Exception as error:  # a body must never cost the whole trace
        report("reading a body", error)
        return Content(unread, cut=True)


def _usage(value: Any) -> dict[str, int] | None:
    return last_usage_of(value) if isinstance(value, list) else usage_of(value)


def _followed(
    follower: Folded | LongRuns | multipart.Form, size: int, content_type: str, redactor: Redactor
) -> Content:
    """Return a body that a follower has parsed as it passed."""
    if isinstance(follower, multipart.Form):
        return _read_form(follower, redactor)
    if isinstance(follower, Folded):
        return _folded(follower, redactor)
    return _without_runs(follower, size, content_type, redactor)


def _folded(stream: Folded, redactor: Redactor) -> Content:
    """Return a stream that was assembled as it passed."""
    answer, cut, usage = stream.answer(redactor.string)
    return Content(redactor.json(answer), cut, usage)


def _without_runs(body: LongRuns, size: int, content_type: str, redactor: Redactor) -> Content:
    """Return JSON without the files in it."""
    value, _ = _json(_Body(body.kept, size, content_type, not body.is_whole, redactor))
    end = body.end.decode("utf-8", "replace")
    return Content(value, True, _usage(value) or usage_in(end), model=model_in(end))


def _with_end(value: Any, end: _Body, reader: Callable[[_Body], tuple[Any, bool]]) -> Content:
    """Combine the parsed beginning of a body with its end."""
    text = end.text
    if isinstance(value, list):
        last = streams.last_of(text, reader is _events, end.parse, end.redactor.pieces)
        return Content([*value, *last], True, last_usage_of(last) or usage_in(text), model=model_in(text))
    if isinstance(value, str):
        shown = shown_end(text, end.redactor.string)
        return Content(f"{value} \u2026 {shown}" if shown else value, True)
    return Content(value, True, _usage(value) or usage_in(text), model=model_in(text))


def unread(content_type: str, size: int) -> Content:
    """Return the description of a body that is not read."""
    return Content({"content_type": content_type[:_MAX_NAME], "bytes": size}, cut=False)


def _as_it_is(data: bytes, redactor: Redactor) -> Content:
    """Return JSON that can be stored unchanged, which is most of it.

    Raises:
        ValueError: The body is not such JSON.
    """
    text = data.decode().removesuffix("\n")  # Flask ends its JSON with one
    value = strict_json.parsed_as_it_is(text)
    if not redactor.is_clean(text):
        raise ValueError("there may be a secret")
    return Content(value, False, _usage_of_list(value) if text[:1] == "[" else usage_of(value), text)


def _usage_of_list(values: list[Any]) -> dict[str, int] | None:
    if streams.assembled(values) is not None:
        raise ValueError("the pieces of an answer")
    return last_usage_of(values[:_MAX_ANSWERS])


@functools.lru_cache(maxsize=256)
def _reader(content_type: str) -> Callable[[_Body], tuple[Any, bool]]:
    named = media_type.named(content_type)
    if not named:
        return _unnamed
    if named == "application/json" or named.endswith("+json"):
        return _json
    if named in forms.LINES:
        return _json_lines
    if named in _READERS:
        return _READERS[named]
    return _text if _TEXT.fullmatch(named) else _bytes


def _json(body: _Body) -> tuple[Any, bool]:
    text = body.text
    try:
        value = strict_json.parsed(strict_json.completed(text) if body.cut else text)
    except ValueError:
        if _are_lines(text):
            return _json_lines(body)
        return body.redactor.text(text) + body.note, body.cut
    if isinstance(value, list):  # a stream of Gemini
        value = streams.assembled(value) or value
    return body.redactor.json(value), body.cut


def _are_lines(text: str) -> bool:
    """Return whether a body of type JSON consists of JSON lines."""
    first, _, rest = text.lstrip().partition("\n")
    try:
        return bool(rest) and isinstance(strict_json.parsed(first), dict)
    except ValueError:
        return False


def _json_lines(body: _Body) -> tuple[Any, bool]:
    values, is_more = streams.read_lines(body.text, body.cut, body.parse)
    if (answer := streams.assembled(values)) is not None and not is_more:
        return body.redactor.json(answer), body.cut
    return body.redactor.pieces(values), body.cut or is_more


def _events(body: _Body) -> tuple[Any, bool]:
    value, is_more = streams.read_events(body.data, body.cut, body.parse, body.redactor.pieces)
    return value if isinstance(value, list) else body.redactor.json(value), body.cut or is_more


def _form(body: _Body) -> tuple[Any, bool]:
    text = body.text
    if text.lstrip().startswith(("{", "[{")):  # the default type of ``curl -d``
        return _json(body)
    values, is_more = form_fields(text)
    return body.redactor.json(values), body.cut or is_more


def form_fields(text: str) -> tuple[dict[str, Any], bool]:
    """Return the fields of a form or a query string, repeated ones as lists, and whether some were left out."""
    pairs = text.split("&", MAX_FIELDS)
    found: dict[str, list[str]] = {}
    for name, _, value in (pair.partition("=") for pair in pairs[:MAX_FIELDS] if pair):
        found.setdefault(unquote_plus(name), []).append(unquote_plus(value))
    values = {name: each[0] if len(each) == 1 else each for name, each in found.items()}
    return values, len(pairs) > MAX_FIELDS


def _multipart(body: _Body) -> tuple[Any, bool]:
    form = multipart.form_of({"content-type": body.content_type}, len(body.data))
    if form is None:
        return _bytes(body)
    form.add(body.data)
    values, is_more = form.fields()
    return body.redactor.json(values), body.cut or is_more


def _read_form(form: multipart.Form, redactor: Redactor) -> Content:
    """Return a form that was parsed as it passed."""
    values, is_more = form.fields()
    return Content(redactor.json(values), is_more)


def _text(body: _Body) -> tuple[Any, bool]:
    pieces = None if body.cut else forms.data_lines(body.text)
    if pieces and (answer := streams.assembled(pieces)) is not None:
        return body.redactor.json(answer), False
    return body.redactor.string(body.text) + body.note, body.cut


def _bytes(body: _Body) -> tuple[Any, bool]:
    """Return the description of a body that is not read; it is never cut."""
    return {"content_type": body.content_type[:_MAX_NAME], "bytes": body.size}, False


def _unnamed(body: _Body) -> tuple[Any, bool]:
    """Parse a body without a content type as a JSON object or array, as text, or as bytes."""
    try:
        _decode(body.data, "utf-8", body.cut, "strict")
    except UnicodeDecodeError:
        return _bytes(body)
    return _json(body) if body.text.lstrip()[:1] in ("{", "[") else _text(body)


_READERS: dict[str, Callable[[_Body], tuple[Any, bool]]] = {
    "text/event-stream": _events,
    "application/x-www-form-urlencoded": _form,
    "multipart/form-data": _multipart,
}


def _decode(data: bytes, codec: str, cut: bool, errors: str = "replace") -> str:
    if not cut:
        return data.decode(codec, errors)
    return codecs.getincrementaldecoder(codec)(errors).decode(data)
