"""Capture: secrets are replaced, and everything else is kept."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_middleware.capture import REDACTED, Redactor
from mlflow_middleware.settings import Settings

redactor = Redactor(Settings.model_fields["redact"].default)
"""With the default keys."""

SECRET_KEYS = [
    "X-API-Key",
    "apiKey",
    "api_key",
    "apikey",
    "APIKEY",
    "openai_api_key",
    "openaiApiKey",
    "accessToken",
    "access_token",
    "X-Amz-Security-Token",
    "X-Amz-Signature",
    "Authorization",
    "Proxy-Authorization",
    "Cookie",
    "Set-Cookie",
    "password",
    "user[password]",
    "PASSWORD",
    "client_secret",
    "private_key",
    "jwt",
    "credentials",
]
ORDINARY_KEYS = [
    "max_tokens",
    "prompt_tokens",
    "total_tokens",
    "maxTokens",
    "tokenizer",
    "author",
    "authors",
    "authority",
    "key",
    "keyboard",
    "api_version",
    "monkey",
    "secretary",
    "cookiecutter",
    "q",
    "",
]


@pytest.mark.parametrize("key", SECRET_KEYS)
def test_secret_keys_are_recognized_in_any_spelling(key: str) -> None:
    """Hyphens, underscores, brackets, camel case, upper case, and words before or after."""
    assert redactor.matches(key)
    assert redactor.value(key, "s3cret") == REDACTED


@pytest.mark.parametrize("key", ORDINARY_KEYS)
def test_keys_that_only_look_like_secrets_stay(key: str) -> None:
    """A key matches by whole words, so that token counts and authors are kept."""
    assert not redactor.matches(key)
    assert redactor.value(key, "7") == "7"


def test_listed_keys_are_read_in_any_spelling() -> None:
    """``apiKey`` in the settings covers ``api-key`` in a request; an entry without a word matches nothing."""
    assert Redactor(["apiKey"]).matches("api-key")
    assert Redactor(["API-KEY"]).matches("api_key")
    assert not Redactor(["", "--"]).matches("anything")
    assert not Redactor([]).matches("password")


@pytest.mark.parametrize(
    ("query", "kept"),
    [
        ("", ""),
        ("a=1&b=2", "a=1&b=2"),
        ("token=s3cret", "token=[redacted]"),
        ("a=1&token=s3cret&b=2", "a=1&token=[redacted]&b=2"),
        ("token=s3=cret==&a", "token=[redacted]&a"),
        ("token=", "token=[redacted]"),
        ("token=one&token=two", "token=[redacted]&token=[redacted]"),
        ("token", "token"),
        ("api%5Fkey=s3cret", "api%5Fkey=[redacted]"),
        ("%74oken=s3cret", "%74oken=[redacted]"),
        ("api+key=s3cret", "api+key=[redacted]"),
        ("user%5Bpassword%5D=s3cret", "user%5Bpassword%5D=[redacted]"),
        ("a=%7B%22token%22%3A1%7D&b=%7B%22c%22%3A1%7D", "[redacted]&b=%7B%22c%22%3A1%7D"),
        ('{"token":"1=2"}&b', "[redacted]&b"),
        ("max_tokens=5&%zz=%&&=&=x", "max_tokens=5&%zz=%&&=&=x"),
    ],
)
def test_only_secret_values_are_removed_from_a_query_string(query: str, kept: str) -> None:
    """The value of a secret parameter is replaced; names, order, encoding and everything else are kept."""
    assert redactor.query(query) == kept


@given(st.text("&=%+;[]_-. \n\x00\xe9\xffabxABX08", max_size=300))
def test_a_query_without_secrets_stays_byte_for_byte(query: str) -> None:
    """However malformed it is; no secret's name can be spelt with these characters."""
    assert redactor.query(query) == query


@given(
    st.lists(st.sampled_from(ORDINARY_KEYS)),
    st.sampled_from(SECRET_KEYS),
    st.text(st.characters(exclude_characters="&", exclude_categories=["C"]), min_size=1),
    st.booleans(),
)
def test_no_secret_gets_through_a_query(ordinary: list[str], key: str, secret: str, is_encoded: bool) -> None:
    """Between any other parameters, and with its name percent-encoded."""
    name = "".join(f"%{byte:02x}" for byte in key.encode()) if is_encoded else quote(key)
    before = "".join(f"{each}=1&" for each in ordinary)

    assert redactor.query(f"{before}{name}={secret}&last=1") == f"{before}{name}={REDACTED}&last=1"


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ({"password": {"a": 1}, "b": [{"token": 1}]}, {"password": REDACTED, "b": [{"token": REDACTED}]}),
        (
            {"arguments": '{"token": "s3cret", "city": "Köln"}'},
            {"arguments": '{"token": "[redacted]", "city": "Köln"}'},
        ),
        ({"arguments": '{ "city":1 }'}, {"arguments": '{ "city":1 }'}),
        ('{"token": "s3cr', '{"token": "[redacted]'),
        ('call it with {"token": "s3cret"}.', 'call it with {"token": "[redacted]"}.'),
        ('"a": 1, "token" : "s3cret"}', '"a": 1, "token" : "[redacted]"}'),
        ('{"token": "s3cret"}'.encode("utf-16-le").decode(), '{"token": "[redacted]"}'),
        ({'{"token": "s3cret"}': 1}, {'{"token": "[redacted]"}': REDACTED}),
        ("[not JSON] at all", "[not JSON] at all"),
        (7, 7),
    ],
)
def test_secret_keys_in_json_lose_their_values(value: Any, kept: Any) -> None:
    """At any depth, and in text that is JSON itself; text without secrets is not rewritten."""
    assert redactor.json(value) == kept


def test_a_long_list_of_names_and_secrets_is_searched_once() -> None:
    """Not once for each of them, which would take minutes."""
    assert Redactor(["default"]).json(["token", "abc1"] * 50_000) == ["token", "[redacted]"] * 50_000


def test_json_that_is_nested_too_deeply_is_replaced() -> None:
    """Content that cannot be searched is not shown."""
    value: Any = "s3cret"
    for _ in range(5000):
        value = [value]

    assert "s3cret" not in str(redactor.json(value))
    assert REDACTED in str(redactor.json(value))


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ('{"token": "s3\\"cret", "a": 1,', '{"token": "[redacted]", "a": 1,'),
        ("{'token': 's3cret', 'a': 1}", "{'token': '[redacted]', 'a': 1}"),
        ('{"token": [1, {"a": "]"}], "a": 1', '{"token": [redacted], "a": 1'),
        ('{"token": 123, "a": 1', '{"token": [redacted], "a": 1'),
        ('{"t\\u006fken": "s3cret", "a": 1', '{"t\\u006fken": "[redacted]", "a": 1'),
        ('"{\\"token\\": \\"s3\\\\\\"cret\\", 1', '"{\\"token\\": \\"[redacted]\\", 1'),
        ('{"token": "s3cret', '{"token": "[redacted]'),
        ("a=1&token=s3cret&b=2", "a=1&token=[redacted]&b=2"),
        ("Authorization: Bearer s3cret\nAccept: a", "Authorization: [redacted]\nAccept: a"),
        ("He gave me a token: a coin.", "He gave me a token: a coin."),
        ("max_tokens=5", "max_tokens=5"),
    ],
)
def test_secret_keys_in_text_lose_their_values(text: str, kept: str) -> None:
    """In broken JSON, or JSON inside another string, in forms and in headers; prose is kept."""
    assert redactor.text(text) == kept


@pytest.mark.parametrize("key", SECRET_KEYS)
@pytest.mark.parametrize(
    "text", ['{{"{}": "x"}}', '{{"a": "{}=x"}}', '{{"a": "{{\\"{}\\": 1}}"}}', '[[{{"{}": null}}]]']
)
def test_the_quick_check_misses_no_secret(key: str, text: str) -> None:
    """Wherever its key is."""
    assert not redactor.is_clean(text.format(key))


@pytest.mark.parametrize("key", ["max_tokens", "total_tokens", "tokenizer", "author", "monkey", "secretary"])
def test_the_quick_check_clears_ordinary_text(key: str) -> None:
    """A language model's answer contains its number of tokens."""
    assert redactor.is_clean(f'{{"{key}": 1, "content": "Là-bas, 100 % sûr\\n"}}')


@pytest.mark.parametrize(("listed", "key"), [("oauth2", "oauth2x"), ("s3", "S3secret"), ("md5", "my_md5hash")])
def test_a_listed_key_may_end_in_a_digit(listed: str, key: str) -> None:
    """A letter after it starts another word."""
    redactor = Redactor([listed])

    assert redactor.matches(key)
    assert not redactor.is_clean(json.dumps({key: "x"}))


def escaped(text: str) -> str:
    """Text with each character by its number."""
    return "".join(f"\\u{ord(char):04x}" for char in text)


SPELLINGS = [str, str.upper, str.title, escaped, quote, lambda key: key.replace("_", "%5F"), "\0".join, "\t".join]
SEPARATORS = ["_", "-", ".", " ", "\t", "\0", "é", "\u200b", "+", "%20", "\\u0020", ""]
spelled = st.builds(
    lambda key, spell, separator, before: before + spell(key.replace("_", separator)),
    st.sampled_from([*SECRET_KEYS, *ORDINARY_KEYS, "private_key", "api_key"]),
    st.sampled_from(SPELLINGS),
    st.sampled_from(SEPARATORS),
    st.sampled_from(["", "my", "my_", "é", "\\n", "x2"]),
)
said = st.one_of(
    spelled,
    spelled.map(lambda key: f"{key}=x"),
    spelled.map(lambda key: f"{key}: x"),
    spelled.map(lambda key: json.dumps({key: "x"})),
    spelled.map(lambda key: json.dumps({"a": json.dumps({key: "x"})})),
    st.integers(),
)
texts = st.recursive(
    said,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(spelled, inner, max_size=3)),
    max_leaves=6,
)


@given(texts, st.booleans())
def test_text_cleared_by_the_quick_check_is_unchanged(value: Any, is_ascii: bool) -> None:
    """The full search replaces nothing."""
    text = json.dumps(value, ensure_ascii=is_ascii)
    for each in (text, text.replace("\\\\", "\\")):
        if redactor.is_clean(each):
            try:
                parsed = json.loads(each)
            except ValueError:
                assert redactor.text(each) == each
            else:
                assert redactor.json(parsed) == parsed
