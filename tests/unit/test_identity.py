"""Identity: ids that a client sends become safe to store, or are replaced."""

from __future__ import annotations

import hashlib
import hmac
import re
import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_middleware.identity import (
    MAX_ID,
    MAX_REQUEST_ID,
    Identity,
    clean_request_id,
    clean_text,
    decode_header,
    from_headers,
    pseudonym,
)

LETTERS_AND_DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
CHARSET = LETTERS_AND_DIGITS + "._:/+=@~-"

REQUEST_IDS = st.builds(
    "".join,
    st.tuples(st.sampled_from(LETTERS_AND_DIGITS), st.text(CHARSET, max_size=MAX_REQUEST_ID - 1)),
)
ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=2000)
"""Any text, with surrogates and controls."""


def read(**headers: str) -> Identity:
    """Return the identity of a request with these headers, under their usual names."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return from_headers(named, "x-request-id", "x-session-id", "x-user-id")


def is_safe(text: str) -> bool:
    """Return whether a text cannot break a log line, a header or a query: no controls, separators or surrogates."""
    return not any(unicodedata.category(char)[0] == "C" or unicodedata.category(char) in ("Zl", "Zp") for char in text)


@given(REQUEST_IDS)
def test_a_request_id_in_the_documented_characters_is_kept(request_id: str) -> None:
    """1 to 128 of them, in any combination."""
    assert clean_request_id(request_id) == request_id
    assert read(x_request_id=request_id).request_id == request_id


@given(ANY_TEXT)
def test_a_request_id_is_never_anything_else(text: str) -> None:
    """An accepted id is the one sent, in the documented characters; others are refused, not repaired."""
    cleaned = clean_request_id(text)

    if cleaned is not None:
        assert cleaned == text.strip()
        assert set(cleaned) <= set(CHARSET)
        assert 1 <= len(cleaned) <= MAX_REQUEST_ID


@pytest.mark.parametrize(
    "refused",
    [
        "",
        " ",
        "a b",
        "a\nb",
        "a\r\nX-Injected: 1",
        "a\x00b",
        "a,b",
        "a;b",
        "a'b",
        'a"b',
        "a%b",
        "a`b",
        "<script>",
        "\N{LATIN SMALL LETTER E WITH ACUTE}",
        "\N{FULLWIDTH DIGIT ONE}",
        "\N{ARABIC-INDIC DIGIT ONE}",
        "-flag",
        "=SUM(A1)",
        "../etc/passwd",
        "a" * (MAX_REQUEST_ID + 1),
    ],
)
def test_an_unacceptable_request_id_is_replaced_by_a_new_one(refused: str) -> None:
    """The new one is 32 hexadecimal digits, and another each time."""
    assert clean_request_id(refused) is None

    first, second = (read(x_request_id=refused).request_id for _ in range(2))
    assert first is not None
    assert re.fullmatch("[0-9a-f]{32}", first)
    assert first != second


def test_a_missing_request_id_is_generated() -> None:
    """A request without headers has a request id, and neither session nor user."""
    who = read()

    assert who.request_id is not None
    assert re.fullmatch("[0-9a-f]{32}", who.request_id)
    assert (who.session_id, who.user_id) == (None, None)


@pytest.mark.parametrize("value", [None, "", " ", "\r\n\t", "\N{NO-BREAK SPACE}"])
def test_an_empty_id_is_none(value: object) -> None:
    """Whitespace alone is nothing."""
    assert clean_text(value) is None
    assert clean_request_id(value) is None


@given(ANY_TEXT, st.integers(1, 300))
def test_text_is_always_bounded_and_safe(text: str, limit: int) -> None:
    """No control, format, surrogate or separator character is kept, and never more than the limit."""
    cleaned = clean_text(text, limit)

    if cleaned is not None:
        assert 1 <= len(cleaned) <= limit
        assert is_safe(cleaned)
        cleaned.encode("utf-8")


@given(st.text(st.characters(categories=("L", "N", "P", "S")), min_size=1, max_size=MAX_ID))
def test_readable_text_is_unchanged(text: str) -> None:
    """Letters of any script, digits, punctuation and symbols are kept."""
    assert clean_text(text) == text


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("  jane doe  ", "jane doe"),
        ("jane\N{NO-BREAK SPACE}doe", "jane\N{NO-BREAK SPACE}doe"),
        ("jane\r\ndoe", "jane\ufffd\ufffddoe"),
        ("jane\x1b[31mdoe", "jane\ufffd[31mdoe"),
        ("jane\u2028doe", "jane\ufffddoe"),
        ("jane\N{RIGHT-TO-LEFT OVERRIDE}eod", "jane\ufffdeod"),
        ("jane\ud800", "jane\ufffd"),
        (42, "42"),
    ],
)
def test_unsafe_characters_are_replaced_one_by_one(text: object, cleaned: str) -> None:
    """Each becomes U+FFFD; the text around it stays readable."""
    assert clean_text(text) == cleaned


def test_ids_of_sessions_and_users_are_truncated() -> None:
    """They keep as much as MLflow stores of a metadata value."""
    who = read(x_session_id="s" * 10_000, x_user_id="u" * 10_000)

    assert (who.session_id, who.user_id) == ("s" * MAX_ID, "u" * MAX_ID)


@given(st.text(max_size=200).filter(lambda text: not text.isascii()))
def test_utf_8_in_a_header_is_repaired(text: str) -> None:
    """Servers decode its bytes as latin-1; the intended text is restored."""
    assert decode_header(text.encode().decode("latin-1")) == text


@pytest.mark.parametrize("text", ["caf\xe9", "\xff\xfe", "\xe9t\xe9", "jane", "", "10 \u20ac", None])
def test_true_latin_1_is_unchanged(text: str | None) -> None:
    """Text that is no UTF-8, or was decoded already, is kept."""
    assert decode_header(text) == text


@given(st.binary(max_size=300))
def test_any_bytes_in_headers_give_a_safe_identity(value: bytes) -> None:
    """With any bytes as its ids, there is a request id and all three are safe."""
    text = value.decode("latin-1")
    who = read(x_request_id=text, x_session_id=text, x_user_id=text)

    assert who.request_id is not None
    assert set(who.request_id) <= set(CHARSET)
    assert all(is_safe(part) for part in (who.session_id, who.user_id) if part is not None)


def test_a_users_name_in_utf_8_is_read() -> None:
    """Session and user may be in any script."""
    name = "\u96ea Jos\xe9"
    header = name.encode().decode("latin-1")

    who = read(x_session_id=header, x_user_id=header)
    assert (who.session_id, who.user_id) == (name, name)


def test_identity_is_read_from_the_headers_named() -> None:
    """The names are those of the settings, not fixed ones."""
    headers = {"x-cid": "r-1", "x-chat": "s-1", "x-who": "jane", "x-request-id": "other", "x-user-id": "other"}

    assert from_headers(headers, "x-cid", "x-chat", "x-who") == Identity("r-1", "s-1", "jane")


@pytest.mark.parametrize(
    ("given_", "expected"),
    [
        ({}, Identity("r", "s", "u")),
        ({"user_id": "auth"}, Identity("r", "s", "auth")),
        ({"request_id": "r-2", "session_id": "s-2", "user_id": "u-2"}, Identity("r-2", "s-2", "u-2")),
        ({"request_id": "not acceptable"}, Identity("r", "s", "u")),
        ({"session_id": "", "user_id": " "}, Identity("r", "s", "u")),
        ({"user_id": "a\nb"}, Identity("r", "s", "a\ufffdb")),
        ({"user_id": 42}, Identity("r", "s", "42")),
    ],
)
def test_over_fills_in_missing_ids(given_: dict[str, Any], expected: Identity) -> None:
    """An app's usable values beat the headers, and are sanitized like them."""
    assert Identity(**given_).over(Identity("r", "s", "u")) == expected


@given(ANY_TEXT, st.binary(min_size=1, max_size=64))
def test_a_pseudonym_is_an_hmac(user_id: str, key: bytes) -> None:
    """HMAC-SHA256 in hexadecimal, for every possible user id."""
    expected = hmac.new(key, user_id.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()

    assert pseudonym(user_id, key) == expected


def test_a_pseudonym_can_be_computed_elsewhere() -> None:
    """The known answer of RFC 4231, test case 2."""
    known = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"

    assert pseudonym("what do ya want for nothing?", b"Jefe") == known
