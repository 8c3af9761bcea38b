"""One body, as it goes into a trace: read by its media type, secrets replaced, never more than was kept of it."""

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
from mlflow_middleware.capture import decoding, llm_streams, multipart, streams, strict_json
from mlflow_middleware.capture.redaction import Redactor

MAX_FIELDS = 1000
"""Fields that are read of one form, or parameters of one query string."""

_MAX_NAME = 200
"""Characters kept of a content type or encoding."""

_PARAMETER = r';\s*{}\s*=\s*(?:"([^"]*)|([^\s";]*))'
_CHARSET = re.compile(_PARAMETER.format("charset"), re.IGNORECASE)
_BOUNDARY = re.compile(_PARAMETER.format("boundary"), re.IGNORECASE)
_CODEC = re.compile(r"ascii|utf-?(8|16|32).*|iso-?8859-?\d+|cp\d+|koi8-\w|gb\w+|big5\w*|shift_jis\w*|euc_\w+|mac-\w+")
"""Python's codecs for text of the web. Others are no encodings of text, or slow with hostile input."""

_TEXT = re.compile(r"text/(?!xml).+|application/(javascript|graphql)")  # secrets in XML are not found, so not that
_LINES = ("application/x-ndjson", "application/ndjson", "application/jsonl", "application/json-seq")


@dataclass(slots=True)
class Content:
    """What is known of one body.

    Attributes:
        value: What JSON can hold, already redacted.
        cut: Whether something of the body is missing in it.
        usage: The tokens that the answer of a language model says it took, named as in MLflow.
        text: The value's JSON, where the body can be stored as it came.
    """

    value: Any
    cut: bool
    usage: dict[str, int] | None = None
    text: str | None = None


@dataclass(slots=True)
class _Body:
    """The beginning of a body, with what is needed to read it."""

    data: bytes
    size: int
    content_type: str
    cut: bool
    redactor: Redactor

    @property
    def text(self) -> str:
        """The text, without the half of a character at its end.

        In UTF-8, -16 or -32 where it is that, whatever the header says: in another encoding, no secret would be found.
        """
        for codec in (json.detect_encoding, lambda data: self.codec):
            with contextlib.suppress(UnicodeError):
                return _decode(self.data, codec(self.data), self.cut, "strict").removeprefix("\ufeff")
        return _decode(self.data, "utf-8", self.cut)

    @property
    def codec(self) -> str:
        """The codec of the header's charset; UTF-8 where there is none."""
        match = _CHARSET.search(self.content_type)
        return _codec(match[1] or match[2] or "" if match else "")

    @property
    def note(self) -> str:
        """What stands at the end of text that is cut."""
        if not self.cut:
            return ""
        of = f" of {self.size}" if self.size > len(self.data) else ""
        return f" … [cut: {len(self.data)}{of} bytes]"

    def parse(self, text: str) -> Any:
        """JSON if it is that, else the text without its secrets."""
        try:
            return strict_json.parsed(text)
        except ValueError:
            return self.redactor.text(text)


def read(data: bytes, size: int, content_type: str, content_encoding: str, limit: int, redactor: Redactor) -> Content:
    """Read a body for the trace; nothing in it makes this raise.

    Args:
        data: The body's beginning.
        size: Bytes of all of it.
        content_type: The header; empty where there is none.
        content_encoding: The header; empty where there is none.
        limit: Bytes that are read at most, also when it is decompressed.
        redactor: Knows which keys hold secrets.
    """
    kind = content_type[:_MAX_NAME]
    unread = {"content_type": kind, "bytes": size}
    try:
        decoded = decoding.decoded(data[:limit], content_encoding, limit)
        if decoded is None:
            return Content({**unread, "content_encoding": content_encoding[:_MAX_NAME]}, cut=False)
        kept, cut = decoded
        cut = cut or min(len(data), limit) < size
        if not kept:
            return Content(unread if cut else None, cut)
        reader = _reader(kind)
        if reader is _json and not cut:
            try:
                return _as_it_is(kept, redactor)
            except ValueError:
                pass
        value, cut = reader(_Body(kept, size, content_type, cut, redactor))
        return Content(value, cut, llm_streams.usage_of(value))
    except Exception as error:  # no body may take the rest of its trace with it
        report("reading a body", error)
        return Content(unread, cut=True)


def _as_it_is(data: bytes, redactor: Redactor) -> Content:
    """JSON in which nothing has to be replaced: most of it.

    Raises:
        ValueError: It is no such JSON.
    """
    text = data.decode().removesuffix("\n")  # as Flask ends its JSON
    value = strict_json.parsed_as_it_is(text)
    if not redactor.is_clean(text):
        raise ValueError("there may be a secret")
    return Content(value, False, llm_streams.usage_of(value), text)


@functools.lru_cache(maxsize=256)
def _reader(content_type: str) -> Callable[[_Body], tuple[Any, bool]]:
    media_type = content_type.partition(";")[0].strip().lower()
    if not media_type:
        return _unnamed
    if media_type == "application/json" or media_type.endswith("+json"):
        return _json
    if media_type in _LINES:
        return _json_lines
    if media_type in _READERS:
        return _READERS[media_type]
    return _text if _TEXT.fullmatch(media_type) else _bytes


def _json(body: _Body) -> tuple[Any, bool]:
    text = body.text
    try:
        value = strict_json.parsed(strict_json.completed(text) if body.cut else text)
    except ValueError:
        return body.redactor.text(text) + body.note, body.cut
    return body.redactor.json(value), body.cut


def _json_lines(body: _Body) -> tuple[Any, bool]:
    values, is_more = streams.read_lines(body.text, body.cut, body.parse)
    return body.redactor.pieces(values), body.cut or is_more


def _events(body: _Body) -> tuple[Any, bool]:
    value, is_more = streams.read_events(body.data, body.cut, body.parse, body.redactor.pieces)
    return value if isinstance(value, list) else body.redactor.json(value), body.cut or is_more


def _form(body: _Body) -> tuple[Any, bool]:
    text = body.text
    if text.lstrip().startswith(("{", "[{")):  # what ``curl -d`` says of all that it sends
        return _json(body)
    values, is_more = form_fields(text)
    return body.redactor.json(values), body.cut or is_more


def form_fields(text: str) -> tuple[dict[str, Any], bool]:
    """The fields of a form or a query string, repeated ones as a list; and whether some were left out."""
    pairs = text.split("&", MAX_FIELDS)
    found: dict[str, list[str]] = {}
    for name, _, value in (pair.partition("=") for pair in pairs[:MAX_FIELDS] if pair):
        found.setdefault(unquote_plus(name), []).append(unquote_plus(value))
    values = {name: each[0] if len(each) == 1 else each for name, each in found.items()}
    return values, len(pairs) > MAX_FIELDS


def boundary_of(content_type: str) -> bytes:
    """The boundary of form data; empty if the content type names none."""
    match = _BOUNDARY.search(content_type)
    return (match[1] or match[2] or "").encode("latin-1", "replace") if match else b""


def _multipart(body: _Body) -> tuple[Any, bool]:
    boundary = boundary_of(body.content_type)
    if not boundary:
        return _bytes(body)
    values, is_more = multipart.fields(body.data, boundary, body.codec)
    return body.redactor.json(values), body.cut or is_more


def _text(body: _Body) -> tuple[Any, bool]:
    return body.redactor.string(body.text) + body.note, body.cut


def _bytes(body: _Body) -> tuple[Any, bool]:
    """All that is told of a body that is not read; nothing is missing in it, however little of it was kept."""
    return {"content_type": body.content_type[:_MAX_NAME], "bytes": body.size}, False


def _unnamed(body: _Body) -> tuple[Any, bool]:
    """A body that does not say what it is: an object or array of JSON, or text, or bytes."""
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


def _codec(charset: str) -> str:
    try:
        name = codecs.lookup(charset.strip()).name
    except (LookupError, ValueError):
        return "utf-8"
    return name if _CODEC.fullmatch(name) else "utf-8"
