"""A quick look at a text: most have no secret, and it takes a few us to see that."""

from __future__ import annotations

import re

from mlflow_middleware.capture.secret_keys import LAST, Keys
from mlflow_middleware.capture.secret_values import Values

_FOLDED = bytes(char if chr(char).isalnum() and char < 128 else 32 for char in bytes(range(256)).lower())
"""Lower case; what is no letter or digit of ASCII becomes a space."""

_HIDDEN = re.compile(rb"\\u00[0-7]|%[0-9A-Fa-f]{2}")
"""A character of ASCII that is written as its number, in JSON, or any in a form."""

_BETWEEN = r"(?:[^A-Za-z0-9]|\\[bfnrt]|\\u[0-9A-Fa-f]{4})*"

_STEMS = (
    *("pass", "token", "secret", "auth", "key", "srf", "card", "code", "sess", "cred", "conn", "addr"),
    *("database", "saml", "otp", "real"),
)
"""What several keys have in common."""

_AFTER = {"tokens": r"(?![a-z])(?!\\*[\"']?\s*[:=]\s*\d)", "key": r"(?![a-z])[^A-Za-z0-9]{1,20}[A-Za-z0-9+/]{20}"}
"""What follows a word that holds a secret as the last one of a key, where that says more than for others."""

_STATEMENTS = {"curl": ["-u"], "wget": ["-user"], "identified": ["identified by", "IDENTIFIED BY", "Identified by"]}
"""Shapes of secrets that have no key."""

_MAX_WORDS = 10_000
"""Words that are remembered: a language has few that are used often."""

_IS_WORD = re.compile(rb"[a-z]{1,20}|[a-z0-9]{1,3}")


class Glance:
    """Whether a text has no secret, as far as a quick look shows.

    Args:
        keys: Knows which keys hold secrets.
        values: Finds what is a secret by itself.
    """

    def __init__(self, keys: Keys, values: Values) -> None:
        self._values = values
        signs: dict[str, list[re.Pattern[str]]] = {}
        for pattern in keys.patterns:
            words = pattern.split()
            signs.setdefault(_stem(words), []).extend(_signs(words))
        endings: dict[str, list[re.Pattern[str]]] = {}
        for word in LAST if keys.has_default else ():
            endings[word] = _signs([word], _AFTER.get(word))
        for word, texts in _STATEMENTS.items() if keys.has_default else ():
            endings[word] = list(map(re.compile, texts))
        self._signs, self._endings, self._all_endings = signs, endings, tuple(endings)
        self._harmless: set[bytes] = set()
        self._suspicious: dict[bytes, list[re.Pattern[str]]] = {}

    def is_clean(self, text: str) -> bool:
        """Whether a quick look shows that there is no secret in a text: `Redactor.json` and `Redactor.text` would leave
        it as it is. False says nothing. 3 us for a chat's body, where a walk takes 20.
        """
        if "\0" in text:
            text = text.replace("\0", "")  # it may be UTF-16 that does not say so
        data = text.encode("utf-8", "surrogatepass")
        if (b"%" in data or b"\\u00" in data) and _HIDDEN.search(data):
            return False
        words = data.translate(_FOLDED).split()
        if not self._harmless.issuperset(words) and self._has_signs(text, set(words) - self._harmless):
            return False
        return not ((b"@" in data and b"://" in data) or self._values.are_own_in(text))

    def _has_signs(self, text: str, words: set[bytes]) -> bool:
        """Whether words that are not known yet may belong to a secret."""
        patterns: dict[re.Pattern[str], None] = {}
        for word in words:
            known = self._suspicious.get(word)
            patterns.update(dict.fromkeys(self._learn(word) if known is None else known))
        return any(pattern.search(text) for pattern in patterns)

    def _learn(self, folded: bytes) -> list[re.Pattern[str]]:
        """What a text with this word may have in it, if it has a secret."""
        word = folded.decode()
        found = [sign for stem, signs in self._signs.items() if stem in word for sign in signs]
        if word.endswith(self._all_endings):
            found += [sign for ending, signs in self._endings.items() if word.endswith(ending) for sign in signs]
        if self._values.may_begin(folded):
            found += self._values.patterns
        if _IS_WORD.fullmatch(folded) and len(self._harmless) + len(self._suspicious) < _MAX_WORDS:
            if found:
                self._suspicious[folded] = found
            else:
                self._harmless.add(folded)
        return found


def _stem(words: list[str]) -> str:
    return next((stem for stem in _STEMS for word in words if stem in word), max(words, key=len))


def _signs(words: list[str], end: str | None = None) -> list[re.Pattern[str]]:
    """What a text has in it where a key with these words in a row may be.

    A word is written in one of three ways; patterns that begin with a text are found faster than others.
    """
    if end is None:
        end = "" if words[-1].isdigit() else "(?![a-z])"  # a letter goes on with a word, but not with a number
    first, *others = [dict.fromkeys((word, word.capitalize(), word.upper())) for word in words]
    rest = "".join(f"{_BETWEEN}(?:{'|'.join(spellings)})" for spellings in others)
    return [re.compile(spelling + rest + end) for spelling in first]
