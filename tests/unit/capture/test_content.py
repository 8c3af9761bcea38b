"""Content: a body as the trace shows it, without any of its secrets."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable
from typing import Any
from urllib.parse import quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_middleware.capture import Redactor, strict_json
from mlflow_middleware.capture.content import Content, read
from mlflow_middleware.settings import Settings
from tests.generators import ENCODERS, MARKER, bomb, documents

redactor = Redactor(Settings.model_fields["redact"].default)
LIMIT = 65536
PIECES = [{"a": '{"token": "[redacted]"}'}, {"a": ""}]
"""A secret whose key came in one piece and whose value in the next."""


def seen(data: bytes, content_type: str, encoding: str = "", cut: bool = False) -> Content:
    """Return a body's content; if truncated, 100 more bytes were not kept."""
    return read(data, len(data) + 100 * cut, content_type, encoding, LIMIT, redactor)


@pytest.mark.parametrize(
    ("data", "content_type", "value"),
    [
        (b'{"a": NaN, "b": 1e999, "token": 1}', "Application/JSON", {"a": "NaN", "b": "1e999", "token": "[redacted]"}),
        (b'{"a": 123456789012345678901}', "application/x+json", {"a": "123456789012345678901"}),
        (b'"\\ud800"', "application/json", "\ufffd"),
        (b"a=1&a=2&b=x+y", "application/x-www-form-urlencoded", {"a": ["1", "2"], "b": "x y"}),
        (b'{"a": 1}\n{"token": 1}\n', "application/x-ndjson", [{"a": 1}, {"token": "[redacted]"}]),
        ("é".encode("latin-1"), "text/plain; charset=latin-1", "é"),
        ("é".encode(), "text/plain; charset=nonsense", "é"),
        (b'{"a": 1}', "", {"a": 1}),
        (b"hello", "", "hello"),
        (b'{"token": "a&b=c"}', "application/x-www-form-urlencoded", {"token": "[redacted]"}),
        (b'&{"token": "abc"}', "application/x-www-form-urlencoded", {'{"token": "[redacted]"}': "[redacted]"}),
        (b"text", "text/plain; charset=utf-16", "text"),
        ('{"token": 1}'.encode("utf-16-le"), "", {"token": "[redacted]"}),
        ("password: hunter2".encode("utf-16-be"), "text/plain; charset=ascii", "password: [redacted]"),
        ("茶\npassword: hunter2".encode("utf-16-le"), "text/plain; charset=latin-1", "6\x83\npassword: [redacted]"),
        (
            b"--b--",
            'multipart/form-data; boundary=""',
            {"content_type": 'multipart/form-data; boundary=""', "bytes": 5},
        ),
        (b'data: {"a": "{\\"token\\": "}\n\ndata: {"a": "12}"}\n\n', "text/event-stream", PIECES),
        (b'{"a": "{\\"token\\": "}\n{"a": "12}"}\n', "application/jsonl", PIECES),
        (b"\xff\x00", "image/png", {"content_type": "image/png", "bytes": 2}),
        (b"", "application/json", None),
    ],
)
def test_bodies_are_shown_by_their_media_type(data: bytes, content_type: str, value: Any) -> None:
    """JSON, forms, lines and text are shown; anything else as its type and size."""
    content = seen(data, content_type)

    assert (strict_json.written(content.value)[0], content.cut) == (value, False)


def test_form_data_is_shown_without_its_files() -> None:
    """Files are shown as name, type and size."""
    head = b'--b\r\nContent-Disposition: form-data; name="'
    data = head + b'a"\r\n\r\nhello\r\n' + head + b'f"; filename="x%22.png"\r\n\r\n\x00\x01\r\n--b--\r\n'

    file = {"filename": 'x".png', "content_type": "application/octet-stream", "size": 2}
    assert seen(data, "multipart/form-data; boundary=b").value == {"a": "hello", "f": file}


def test_truncated_bodies_are_shown_as_far_as_they_go() -> None:
    """JSON is closed, without values that may be incomplete; text is marked as truncated."""
    assert seen(b'{"a": [1, {"b": "hel', "application/json", cut=True) == Content({"a": [1, {"b": "hel"}]}, cut=True)
    assert seen(b'{"a": 1, "b": 12', "application/json", cut=True).value == {"a": 1}
    assert seen(b"hell\xff", "text/plain; charset=utf-16", cut=True).value == "hell\ufffd … [cut: 5 of 105 bytes]"
    assert seen(b"hello", "text/plain", cut=True).value == "hello … [cut: 5 of 105 bytes]"


def test_compressed_bodies_are_read_within_the_limit() -> None:
    """Also if a few bytes expand to millions, or some are missing."""
    data = b'{"a": "b"}'
    bare = zlib.compressobj(wbits=-15)
    assert seen(gzip.compress(data), "application/json", "gzip").value == {"a": "b"}
    assert seen(zlib.compress(data), "application/json", "deflate").value == {"a": "b"}
    assert seen(bare.compress(data) + bare.flush(), "application/json", "deflate").value == {"a": "b"}
    assert seen(gzip.compress(gzip.compress(data)), "application/json", "gzip, gzip").value == {"a": "b"}
    assert seen(gzip.compress(data)[:12], "application/json", "gzip", cut=True).cut
    bomb = seen(gzip.compress(b"x" * 10_000_000), "text/plain", "gzip")
    assert bomb.cut
    assert len(bomb.value) < LIMIT + 100
    assert seen(b"abc", "text/plain", "odd").value == {
        "content_type": "text/plain",
        "content_encoding": "odd",
        "bytes": 3,
    }


@pytest.mark.parametrize("encoding", ["br", "zstd"])
def test_newer_encodings_are_read_within_the_limit(encoding: str) -> None:
    """Whole, truncated, nested, and as bombs; alone and inside another bomb."""
    encode = encoder(encoding)
    data = json.dumps({"a": [str(number**9) for number in range(2000)]}).encode()
    packed = encode(data)
    whole = seen(packed, "application/json", encoding)
    assert (json.dumps(whole.value).encode(), whole.cut) == (data, False)
    assert seen(gzip.compress(packed), "application/json", f"{encoding}, gzip") == whole
    part = read(packed[: len(packed) // 2], len(packed), "application/json", encoding, LIMIT, redactor)
    assert part.cut
    for explosive, encodings in (
        (bomb(encoding), encoding),
        (gzip.compress(bomb(encoding)), f"{encoding}, gzip"),
        (encode(gzip.compress(b"x" * 10_000_000)), f"gzip, {encoding}"),
    ):
        shown = seen(explosive, "text/plain", encodings)
        assert shown.cut
        assert LIMIT <= len(shown.value) < LIMIT + 100 or shown.value.startswith('{"password": "[redacted]')
    assert seen(b"no such data", "text/plain", encoding).value["content_encoding"] == encoding


def encoder(encoding: str) -> Callable[[bytes], bytes]:
    """Return the encoder; skip the test if no library has it."""
    if encoding not in ENCODERS:
        pytest.skip(f"no library for {encoding} is installed in this environment")
    return ENCODERS[encoding][0]


def test_a_zstd_window_of_gigabytes_is_not_opened() -> None:
    """It is larger than HTTP allows: a decoder would buffer that much."""
    encoder("zstd")
    zstandard = pytest.importorskip("zstandard", reason="zstandard is not installed in this environment")
    parameters = zstandard.ZstdCompressionParameters(window_log=27)
    data = zstandard.ZstdCompressor(compression_params=parameters).compressobj().compress(b"x" * 10_000_000)

    assert seen(data, "text/plain", "zstd").value["content_encoding"] == "zstd"


TYPES = [
    "application/json",
    "text/plain",
    "text/event-stream",
    "multipart/form-data; boundary=b",
    "",
    "application/jsonl",
]


@given(
    st.binary(),
    st.sampled_from([*TYPES, "application/x-www-form-urlencoded"]),
    st.sampled_from(["", "gzip", "deflate"]),
)
def test_no_body_raises(data: bytes, content_type: str, encoding: str) -> None:
    """The result is strict JSON, whatever the body."""
    value, text = strict_json.written(seen(data, content_type, encoding).value)

    assert json.dumps(value, allow_nan=False, ensure_ascii=False) == text
    text.encode()


def wrapped(document: Any, how: str) -> tuple[bytes, str, str]:
    """Return a document as a body, with its content type and encoding."""
    text = json.dumps(document)
    part = '--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n' + text + "\r\n--b--\r\n"
    return {
        "json": (text.encode(), "application/json", ""),
        "utf-16": (text.encode("utf-16"), "application/json", ""),
        "broken": (f"{text[:1]},{text[1:]}".encode(), "application/json", ""),
        "unnamed": (text.encode(), "", ""),
        "text": (text.encode(), "text/plain", ""),
        "form": (f"a={quote_plus(text)}&b=1".encode(), "application/x-www-form-urlencoded", ""),
        "multipart": (part.encode(), "multipart/form-data; boundary=b", ""),
        "gzip": (gzip.compress(text.encode()), "application/json", "gzip"),
        "events": (f"data: {text}\n\ndata: x{text}\n\n".encode(), "text/event-stream", ""),
    }[how]


HOW = ["json", "utf-16", "broken", "unnamed", "text", "form", "multipart", "gzip", "events"]


@pytest.mark.parametrize("how", HOW)
@given(documents, st.floats(0, 1))
def test_no_secret_survives(how: str, document: Any, share: float) -> None:
    """However the document is wrapped, and wherever it is truncated."""
    data, content_type, encoding = wrapped(document, how)
    kept = data[: round(len(data) * share)]
    content = read(kept, len(data), content_type, encoding, LIMIT, redactor)

    assert MARKER[:6] not in json.dumps(content.value)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b'{"a":[1,2.5,null,true],"b":"\xc3\xa9\\n"}', '{"a":[1,2.5,null,true],"b":"\u00e9\\n"}'),
        (b'[{"max_tokens":3}]\n', '[{"max_tokens":3}]'),
        (b'{"a": NaN}', None),
        (b'{"a": -Infinity}', None),
        (b'{"a": 1e999}', None),
        (b'{"a": 12345678901234567890123}', None),
        (b'{"a": "\\ud800"}', None),
        (b'{"a":\n1}', None),
        (b' {"a": 1}', None),
        (b'{"a": 1} {"b": 2}', None),
        (b'"text"', None),
        (b'{"password": "x"}', None),
        (b"[" * 30 + b"]" * 30, None),
        (b'{"a": 1', None),
    ],
)
def test_storable_json_is_kept_verbatim(data: bytes, text: str | None) -> None:
    """It is not rewritten; anything that a trace cannot store is."""
    content = seen(data, "application/json")

    assert content.text == text
    if text is not None:
        assert json.loads(text) == content.value
