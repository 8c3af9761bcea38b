"""Forms, while their bytes pass: the parts that are kept, and the cost of hostile ones."""

from __future__ import annotations

import itertools
import re
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mlflow_middleware.capture import Redactor
from mlflow_middleware.capture.body import Body
from mlflow_middleware.capture.contents import fill
from mlflow_middleware.capture.multipart import MAX_PARTS, Form
from mlflow_middleware.exchange import Exchange
from mlflow_middleware.request.following import follow_request

LIMIT = 65536
HEADERS = {"content-type": "multipart/form-data; boundary=bound"}


def part(name: str, value: bytes, more: str = "", kind: str = "") -> bytes:
    """Return one part of a form."""
    head = f'--bound\r\nContent-Disposition: form-data; name="{name}"{more}\r\n{kind}\r\n'
    return head.encode() + value + b"\r\n"


def form(*parts: bytes) -> bytes:
    """Return a whole form."""
    return b"".join(parts) + b"--bound--\r\n"


def seen(
    data: bytes, step: int = 65536, limit: int = LIMIT, headers: dict[str, str] | None = None
) -> tuple[Any, bool, Body]:
    """Return the inputs of a request with this body, whether they are incomplete, and the number of kept bytes."""
    exchange = Exchange("POST", "/", HEADERS if headers is None else headers)
    exchange.request_body = body = Body(limit)
    for start in range(0, len(data), step):
        if body.add(data[start : start + step]):
            follow_request(exchange, body)
    sent, _ = fill(exchange, Redactor(("default",)), limit, None)
    return exchange.inputs, sent.cut, body


FILE = part("f", b"\x00\r\n--bou" * 40_000, '; filename="a.bin"', "Content-Type: application/x-thing\r\n")
SIZE = 40_000 * 8


@pytest.mark.parametrize("step", [1, 7, 1000, 16384, 65536, 10**7])
def test_a_long_upload_has_its_true_size_and_the_fields_after_it(step: int) -> None:
    """However the bytes arrive; few of them are kept."""
    data = form(part("a", b"before"), FILE, part("b", b"after"), part("b", b"again"))
    values, cut, body = seen(data, step)

    file = {"filename": "a.bin", "content_type": "application/x-thing", "size": SIZE}
    assert (values, cut) == ({"a": "before", "f": file, "b": ["after", "again"]}, False)
    assert (body.size, body.kept) == (len(data), b"")
    assert body.held < 20_000


@given(
    st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b"--bound", b"-", b"x", b"\r\n--boun"]), max_size=30), st.data()
)
def test_contents_that_resemble_a_boundary(pieces: list[bytes], data: st.DataObject) -> None:
    """A file's size is that of its bytes, with any chunk boundaries."""
    content = b"x" + b"".join(pieces)
    assume(not re.search(rb"[\r\n]--bound", content))
    whole = form(part("f", content, '; filename="x"'), part("a", b"after"))
    cuts = [0, *sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=8))), len(whole)]
    read = Form(b"bound", LIMIT)
    for start, end in itertools.pairwise(cuts):
        read.add(whole[start:end])
    values, cut = read.fields()

    assert (values["f"]["size"], values["a"], cut) == (len(content), "after", False)


def test_secrets_after_a_long_file_are_replaced() -> None:
    """Like in every other body."""
    values, _, _ = seen(form(FILE, part("password", b"hunter2"), part("note", b"password: hunter2")))

    assert (values["password"], values["note"]) == ("[redacted]", "password: [redacted]")


def test_text_is_kept_up_to_the_limit_in_total() -> None:
    """Later fields are still listed."""
    values, cut, body = seen(form(part("a", b"x" * 100_000), part("b", b"y" * 100_000), FILE), limit=1000)

    assert (values["a"], values["b"], values["f"]["size"], cut) == ("x" * 1000, "", SIZE, True)
    assert body.held < 20_000


def test_without_capture_nothing_is_read() -> None:
    """Only the size of the body is known."""
    values, _, body = seen(form(FILE), limit=0)

    assert (values, body.held, body.follower) == (None, 0, None)


def test_a_client_that_disconnects_leaves_the_first_part() -> None:
    """The file's size is that of the received bytes."""
    values, cut, _ = seen(form(part("a", b"before"), FILE)[:200_000])

    assert cut
    assert values["a"] == "before"
    assert 199_000 < values["f"]["size"] < 200_000


def test_text_and_names_are_in_the_pages_encoding() -> None:
    """Latin-1 names hide no later fields."""
    latin = part("n", "grün".encode("latin-1")) + part("f", b"1", '; filename="grün.txt"').decode().encode("latin-1")
    charset = {"content-type": "multipart/form-data; boundary=bound; charset=latin-1"}

    file = {"filename": "grün.txt", "content_type": "application/octet-stream", "size": 1}
    for more in (b"", FILE):
        values, _, _ = seen(form(latin, more, part("z", b"after")), headers=charset)
        assert (values["n"], values["f"][0] if more else values["f"], values["z"]) == ("grün", file, "after")


def test_an_invalid_charset_hides_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """Names stay readable as far as possible."""
    latin = part("a", b"1") + part("\u00e9", b"2").decode().encode("latin-1")
    values, cut, _ = seen(form(latin), headers={"content-type": "multipart/form-data; boundary=bound; charset=utf-16"})

    assert (list(values), cut, caplog.text) == (["a", "\ufffd"], False, "")


PADDING = b"x" * LIMIT
ENDLESS = b'--bound\r\nContent-Disposition: form-data; name="a"\r\n' + b"X: y\r\n" * 300_000


@pytest.mark.parametrize(
    "data",
    [
        b"".join(part(f"p{number}", b"x" * 50) for number in range(20_000)),
        b"".join(part("n" * 5000, b"", '; filename="' + "f" * 5000 + '"') for number in range(500)),
        ENDLESS,
        b"preamble " * 200_000,
        b"--bound\r\n\r\n" * 100_000,
        b"--bound\r\nX: y\r\n\r\nz\r\n" * 100_000,
        b"--bound x" * 200_000,
        b"\r\n" * 500_000,
        form(part("a", b"b")) + b"epilogue " * 200_000,
        form(part("a", PADDING), b'--bound\r\nContent-Disposition: form-data; name="\xff\xfe\r\n\r\n' + PADDING),
        form(part("a", PADDING), b"--bound\r\nContent-Disposition: form-data; filename*0*=utf-9'" + PADDING),
    ],
    ids=[
        "parts",
        "names",
        "headers",
        "preamble",
        "nameless",
        "no disposition",
        "half boundaries",
        "line ends",
        "epilogue",
        "no text",
        "odd parameters",
    ],
)
@pytest.mark.parametrize("step", [100, 65536])
def test_hostile_forms_cost_no_more_than_their_size(data: bytes, step: int, caplog: pytest.LogCaptureFixture) -> None:
    """The kept part is bounded, nothing raises, and nothing is logged."""
    values, _, body = seen(data, step)

    assert body.follower is not None
    assert body.held < 4 * LIMIT + 400 * MAX_PARTS
    assert len(values) <= MAX_PARTS
    assert caplog.text == ""


@pytest.mark.parametrize(
    "kind", ["multipart/form-data", "multipart/form-data; boundary=", f"multipart/form-data; boundary={'b' * 500}"]
)
def test_without_a_boundary_it_is_no_form(kind: str) -> None:
    """Its type and size are shown."""
    values, _, body = seen(form(FILE), headers={"content-type": kind})

    assert values == {"content_type": kind[:200], "bytes": body.size}


def test_a_compressed_form_is_read_as_far_as_it_is_kept() -> None:
    """Otherwise it would have to be decompressed while it passes."""
    _, cut, body = seen(form(FILE), headers={**HEADERS, "content-encoding": "gzip"})

    assert (body.follower, body.held, cut) == (None, LIMIT, False)
