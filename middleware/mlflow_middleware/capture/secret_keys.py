"""Keys that hold secrets: `password` always, `session` or `pin` if the value looks like a secret."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from typing import Any, Literal

DEFAULT = "default"
"""The entry in a list of keys that stands for `KEYS` and `LAST`."""

KEYS = (
    *("password", "passwd", "passphrase", "passcode", "passwort", "pwd", "pass_word", "pass_phrase", "pass_code"),
    *("secret", "token", "jwt", "credential", "cookie", "signature", "csrf", "xsrf", "authorization", "assertion"),
    *("ap_ikey",),  # the words of ``APIkey``
    *("api_key", "private_key", "access_key", "account_key", "subscription_key", "encryption_key", "secret_key"),
    *("signing_key", "shared_key", "master_key", "storage_key", "session_key", "auth_key", "ssh_key", "hmac_key"),
    *("decryption_key", "license_key", "recovery_key", "client_key"),
    *("connection_string", "dsn", "database_url", "saml_response", "saml_request"),
    *("otp", "totp", "cvv", "cvc", "ssn", "iban", "credit_card", "card_number", "security_code"),
    *("verification_code", "recovery_code", "backup_code", "mfa_code"),
    *("sessionid", "sessid", "phpsessid", "symfony", "x_forwarded_for", "x_real_ip", "remote_addr", "ip_address"),
)
"""Sequences of whole words anywhere in a key, in any spelling. Together with `LAST` they cover the lists of Sentry's
and Elastic's clients."""

Kind = Literal["", "always", "text", "opaque", "digits", "long"]
"""Condition for a key's value to be a secret: never, always, text, machine-generated, a number of 3 to 12 digits, long
and machine-generated."""

LAST: dict[str, Kind] = {
    "auth": "always",
    "oauth": "always",
    "sid": "always",
    "pass": "text",
    "pw": "text",
    "pin": "digits",
    "sig": "opaque",
    "tokens": "opaque",
    "session": "opaque",
    "card": "opaque",
    "credit": "opaque",
    "principal": "opaque",
    "authentication": "opaque",
    "bearer": "opaque",
    "key": "long",
}
"""Words that mark a secret only as the last word of a key; elsewhere they are ordinary words."""

_MAX_CACHED = 256
"""Longest key, in characters, whose result is cached; a key in a body may be as long as the body."""

_MIN_COMPOUND = 5
"""Shortest word, in characters, that is also recognized as the end of another word, as in ``accesstoken``."""

_OF_TOKENS = ("access", "refresh", "auth", "api", "id", "bearer", "session", "csrf")
"""Words before ``tokens`` that make it a secret."""

_NO_PLURAL = ("token", "authorization", "sessionid", "sessid", "phpsessid", "symfony")
"""Keys whose plural is not a secret, or is usually a number."""

_HARMLESS = re.compile(
    r" \S+  (?:counts?|types?|ids|length|limits?|usage|policy|required|expires|expiry|ttl|strength|budget|endpoint"
    r"|consent|details|logprobs|errors?|exceptions?|warnings?) | (?:bos|eos|pad|unk|sep|cls|mask|stop)  token "
    r"| (?:max|min|total|prompt|completion|input|output|cached|reasoning|num|n|used|stop|special|new)  tokens "
)
"""Keys that describe a secret without containing it, such as ``token_type``, and the tokens of language models."""

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_BY_MACHINE = re.compile(
    r"(?=.{0,300}[0-9])(?=.{0,300}[A-Za-z])[^\s()\[\]{}<>\"',;]{6,}|[^\s()\[\]{}<>\"',;]{20,}|(?:[0-9][ -]?){12,}"
)
_LONG = re.compile(r"(?=.{0,300}[0-9])(?=.{0,300}[A-Za-z])[A-Za-z0-9+/]{20,}={0,2}")
_DIGITS = re.compile(r"[0-9]{3,12}")


class Keys:
    """Matcher of keys that hold secrets.

    A key matches if it contains the words of a listed one in a row: ``api_key`` covers ``X-API-Key``, ``apiKey`` and
    ``openai_api_keys``; ``token`` covers ``accessToken`` and ``accesstoken``, but not ``max_tokens``.

    Args:
        keys: The listed keys, in any spelling; ``default`` stands for `KEYS` and `LAST`.
    """

    def __init__(self, keys: Iterable[str]) -> None:
        given = list(keys)
        self.has_default = DEFAULT in given
        self._own = _patterns(each for each in given if each != DEFAULT)
        self._default = _patterns(KEYS) if self.has_default else ()
        self.patterns = (*self._own, *self._default)
        compounds = (pattern.replace(" ", "") for pattern in self.patterns)
        self._compounds = tuple(each for each in compounds if len(each) >= _MIN_COMPOUND)
        self._last = LAST if self.has_default else {}
        self._remembered = functools.lru_cache(maxsize=4096)(self._kind)

    def kind(self, key: str) -> Kind:
        """Return the condition for the key's value to be a secret."""
        return self._remembered(key) if len(key) <= _MAX_CACHED else self._kind(key)

    def is_secret(self, key: str, value: Any) -> bool:
        """Return whether the value of a key is a secret."""
        return is_secret(self.kind(key), value)

    def _kind(self, key: str) -> Kind:
        words = words_of(key)
        if any(pattern in words for pattern in self._own):
            return "always"
        if self.has_default:
            words = _HARMLESS.sub(" ", words)
        if any(pattern in words for pattern in self._default):
            return "always"
        *before, last = words.split() or [""]
        if self._compounds and any(word.endswith(self._compounds) for word in (*before, last)):
            return "always"
        if last == "tokens" and before and before[-1] in _OF_TOKENS:
            return "text"
        kind = self._last.get(last, "")
        return "" if kind == "long" and not before else kind


def _patterns(keys: Iterable[str]) -> tuple[str, ...]:
    """Return the words of keys and of their plurals."""
    found = dict.fromkeys(pattern for key in keys if (pattern := words_of(key)))
    plurals = [f"{each[:-1]}s " for each in found if each.strip() not in _NO_PLURAL and not each.endswith("s ")]
    return (*found, *plurals)


def is_secret(kind: Kind, value: Any) -> bool:
    """Return whether a value is a secret under a key of that kind. Booleans, null and fractions never are."""
    if not kind or value is None or isinstance(value, bool | float):  # such as ``time_to_first_token``
        return False
    if kind == "always":
        return True
    if kind == "digits":
        return _DIGITS.fullmatch(str(value)) is not None
    if not isinstance(value, str):
        return False
    return kind == "text" or (_LONG if kind == "long" else _BY_MACHINE).fullmatch(value.strip()[:4096]) is not None


def is_made_by_machine(value: str) -> bool:
    """Return whether a text looks machine-generated: letters and digits mixed, or very long."""
    return _BY_MACHINE.fullmatch(value[:4096]) is not None


def words_of(key: str) -> str:
    """Return the lower-case words of a key, each between spaces, so that ``in`` compares whole words."""
    return "".join(f" {word.lower()} " for word in _WORD.findall(key))
