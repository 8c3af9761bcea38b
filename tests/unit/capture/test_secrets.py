"""The corpus of secrets: each is replaced in a body's content, and its harmless twin is unchanged."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from mlflow_middleware.capture import REDACTED, Redactor
from mlflow_middleware.capture.content import read
from mlflow_middleware.capture.secret_keys import KEYS
from mlflow_middleware.settings import Settings
from tests.secrets import CASES, Case

redactor = Settings().redactor
blind = Redactor([], [])
"""Finds nothing."""

LIMIT = 65536

MAX_SECONDS = 2.0
"""CPU time for a text of that size; each takes far less than a tenth of it."""


def seen(text: str, kind: str, redactor: Redactor = redactor) -> Any:
    """Return a body's content in the trace."""
    data = text.encode()
    return read(data, len(data), kind, "", LIMIT, redactor).value


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_secret_is_replaced(case: Case) -> None:
    """Whatever its format."""
    shown = json.dumps(seen(case.leak, case.type), ensure_ascii=False)

    assert case.is_clean(shown)
    assert REDACTED in shown


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_harmless_lookalike_is_unchanged(case: Case) -> None:
    """It is verbatim."""
    assert seen(case.twin, case.type) == seen(case.twin, case.type, blind)


@pytest.mark.parametrize("case", [case for case in CASES if case.type == "application/json"], ids=str)
def test_a_secret_in_text_that_is_json_is_replaced(case: Case) -> None:
    """In a tool's arguments, in an event of a stream, under another content type, and in a truncated body."""
    inside = json.dumps({"arguments": case.leak})
    event = f"data: {inside}\n\n"

    for text, kind in ((inside, "application/json"), (event, "text/event-stream"), (case.leak, "text/plain")):
        assert case.is_clean(json.dumps(seen(text, kind), ensure_ascii=False)), kind


def test_own_patterns_are_added_to_ours_or_replace_them() -> None:
    """An empty list searches for keys only."""
    said = json.dumps({"a": "ACME-1234", "b": "ghp_abcDEF1234567890abcDEF1234567890abcd", "token": "x"})
    both, own, none = (
        Settings(redact_values=given).redactor for given in (("default", r"ACME-\d+"), (r"ACME-\d+",), ())
    )

    assert seen(said, "application/json", both) == dict.fromkeys(("a", "b", "token"), REDACTED)
    assert seen(said, "application/json", own)["b"][:4] == "ghp_"
    assert seen(said, "application/json", none)["a"] == "ACME-1234"
    assert seen(said, "application/json", none)["token"] == REDACTED


def test_an_own_pattern_is_found_at_the_start_of_a_line() -> None:
    """In JSON, a letter precedes it."""
    said = json.dumps({"content": "my order:\nACME-1234\n"})

    assert "ACME-1234" not in json.dumps(
        seen(said, "application/json", Settings(redact_values=(r"\bACME-\d+",)).redactor)
    )


HOSTILE = {
    "spaces in the line below a name": "password\na\n" + " " * LIMIT,
    "validators' errors in one line": "password\na\n " + "[type=x, input_value=" * (LIMIT // 21),
    "ends of lines of old": " x\r" * (LIMIT // 6) + "a\r" + "password:\r" * (LIMIT // 20),
    "a long name in a tag": "<password><a " + "a" * LIMIT + ">",
    "a bearer of nothing": "bearer" + "+" * LIMIT,
    "a word again and again": "password=" * (LIMIT // 9),
    "many words": "".join(f"session{number}=a" for number in range(LIMIT // 13)),
    "rows without an end": "Key (token)=(" * (LIMIT // 13),
}
"""Texts that a search for secrets could scan repeatedly."""


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_text_is_read_in_linear_time(kind: str) -> None:
    """Some of them took a minute, during which nothing else ran in the process."""
    began = time.process_time()
    seen(HOSTILE[kind], "text/plain")

    assert time.process_time() - began < MAX_SECONDS


def test_own_keys_are_added_to_ours_or_replace_them() -> None:
    """By a list."""
    both, own = (Settings(redact=given).redactor for given in (("default", "shoe_size"), ("shoe_size",)))

    assert [both.matches(key) for key in ("shoeSize", "password", "session")] == [True] * 3
    assert [own.matches(key) for key in ("shoeSize", "password", "session")] == [True, False, False]


SENTRY = (
    *("password", "passwd", "secret", "api_key", "apikey", "auth", "credentials", "mysql_pwd", "privatekey"),
    *("private_key", "token", "session", "csrftoken", "sessionid", "x_csrftoken", "x_forwarded_for", "set_cookie"),
    *("cookie", "authorization", "proxy-authorization", "x_api_key", "aiohttp_session", "connect.sid", "csrf_token"),
    *("csrf", "_csrf", "_csrf_token", "PHPSESSID", "_session", "symfony", "user_session", "_xsrf", "XSRF-TOKEN"),
    *("x_real_ip", "ip_address", "remote_addr"),
)
"""``DEFAULT_DENYLIST`` and ``DEFAULT_PII_DENYLIST`` of sentry-sdk 2.75 (sentry_sdk/scrubber.py)."""

ELASTIC = (
    *("password", "passwd", "pwd", "secret", "some_key", "some_token", "some_session", "credit", "card", "auth"),
    *("principal", "set-cookie"),
)
"""``BASE_SANITIZE_FIELD_NAMES`` of elastic-apm 6.26 (elasticapm/conf/constants.py), with words for its wildcards."""


@pytest.mark.parametrize("key", sorted({*SENTRY, *ELASTIC, *KEYS}))
def test_no_key_of_other_libraries_is_missing(key: str) -> None:
    """A machine-made value is replaced under each."""
    value = "4fG7abcDEF1234567890xyz9"

    assert redactor.json({key: value}) == {key: REDACTED}
    assert value not in redactor.text(f"a=1&{key}={value}")
