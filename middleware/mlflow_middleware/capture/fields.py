"""Lookup of fields in a request's body; the values are not redacted and not stored."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from mlflow_middleware.capture import decoding, media_type, multipart, strict_json
from mlflow_middleware.capture.body import Body
from mlflow_middleware.capture.content import form_fields
from mlflow_middleware.capture.long_runs import LongRuns

MAX_INDEX = 5
"""Maximum number of characters of an index into a list."""


def fields_of(body: Body | None, content_type: str, content_encoding: str) -> Any:
    """Parse a body as far as it has been read: JSON, a URL-encoded form, or form data.

    Args:
        body: The body, as far as it has been read.
        content_type: The header; JSON is recognized without it.
        content_encoding: The header; at most the limit of a body is decompressed.

    Returns:
        An object, an array, or the fields by name; None if it is none of these. An incomplete value is left out.
    """
    follower = body.follower if body else None
    if isinstance(follower, multipart.Form):
        return follower.known()
    if isinstance(follower, LongRuns):
        return _json(follower.kept, not follower.is_whole)
    if body is None or not (known := body.readable):
        return None
    decoded = decoding.decoded(known, content_encoding, body.limit)
    if not decoded or not decoded[0]:
        return None
    data, is_cut = decoded
    is_cut = is_cut or len(known) < body.size
    named = media_type.named(content_type)
    if named == "multipart/form-data":
        form = multipart.form_of({"content-type": content_type}, len(data))
        if form is None:
            return None
        form.add(data)
        return form.known()
    if data.lstrip(b"\xef\xbb\xbf\xff\xfe\x00 \t\r\n")[:1] in (b"{", b"["):
        return _json(data, is_cut)
    if named == "application/x-www-form-urlencoded":
        text = data.decode(errors="replace")
        return form_fields(text.rpartition("&")[0] if is_cut else text)[0]
    return None


def _json(data: bytes, is_cut: bool) -> Any:
    text = data.decode(json.detect_encoding(data), "replace").removeprefix("\ufeff")
    try:
        return strict_json.parsed(strict_json.completed(text, with_partial=False) if is_cut else text)
    except ValueError:
        return None


def look_up(value: Any, path: str) -> Any:
    """Return the value at a dotted path in parsed JSON; None if there is none.

    Args:
        value: Parsed JSON.
        path: Keys and indexes between dots; a key may contain dots, and a negative index counts from the end.
    """
    if not path:
        return value
    for key, rest in splits(path):
        inner = _item(value, key)
        if inner is not None and (found := look_up(inner, rest)) is not None:
            return found
    return None


def splits(path: str) -> Iterator[tuple[str, str]]:
    """Yield all splits of a dotted path into a first key and the rest, the longest key first."""
    parts = path.split(".")
    for count in range(len(parts), 0, -1):
        yield ".".join(parts[:count]), ".".join(parts[count:])


def _item(value: Any, key: str) -> Any:
    if isinstance(value, dict):
        return value.get(key)
    if isinstance(value, list):
        return item_of(value, key)
    return None


def item_of(values: Any, index: str) -> Any:
    """Return an item of a list; None if the index is invalid or out of range."""
    is_index = len(index) <= MAX_INDEX and index.removeprefix("-").isdecimal()
    return values[number] if is_index and -len(values) <= (number := int(index)) < len(values) else None
