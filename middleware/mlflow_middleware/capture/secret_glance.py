"""A fast check for secrets: most texts have none, and a few microseconds are enough to rule them out."""

from __future__ import annotations

import re
from typing import NamedTuple

from mlflow_middleware.capture.secret_keys import LAST, Keys
from mlflow_middleware.capture.secret_values import Values, as_written

_FOLDED = bytes(char if chr(char).isalnum() and char < 128 else 32 for char in bytes(range(256)).lower())
"""Translation table to lower case; characters other than ASCII letters and digits become a space."""

_HIDDEN = re.compile(r"\\u00[0-7]|%[0-9A-Fa-f]{2}|\0")
"""An escaped ASCII character in JSON, any percent-encoded character, or a NUL byte, as in undeclared UTF-16."""

_ANY = re.compile("")

_BETWEEN = r"(?:[^A-Za-z0-9]|\\[bfnrt]|\\u[0-9A-Fa-f]{4})*"

_STEMS = (
    *("pass", "token", "secret", "auth", "key", "srf", "card", "code", "sess", "cred", "conn", "addr"),
    *("database", "saml", "otp", "real"),
)
"""Stems that several keys share."""

_AFTER = {"tokens": r"(?![a-z])(?!\\*[\"']?\s*[:=]\s*\d)", "key": r"(?![a-z])[^A-Za-z0-9]{1,20}[A-Za-z0-9+/]{20}"}
"""Stricter patterns for the text after a key's last word, for words that are common otherwise."""

_STATEMENTS = {"curl": ["-u"], "wget": ["-user"], "identified": ["identified by", "IDENTIFIED BY", "Identified by"]}
"""Statements with a secret that has no key."""

_MAX_KNOWN, _MAX_LENGTH = 20_000, 40
"""Maximum number of cached words, and their maximum length in characters; few words make up most texts."""


class _Sign(NamedTuple):
    """A sign that a text may contain a secret.

    Attributes:
        pattern: The pattern of the sign.
        spelling: A text that one part must contain; empty for none.
        is_alone: Whether the sign lies within one part.
    """

    pattern: re.Pattern[str]
    spelling: str = ""
    is_alone: bool = False

    def may_begin_in(self, part: str) -> bool:
        """Return whether the sign may occur in a text because of this part of it."""
        return self.spelling in part and not (self.is_alone and self.pattern.search(part) is None)


class Glance:
    """A fast check that rules out secrets in most texts.

    Args:
        keys: The keys that hold secrets.
        values: The patterns of values that are secrets.
    """

    def __init__(self, keys: Keys, values: Values) -> None:
        self._values = values
        signs: dict[str, list[_Sign]] = {}
        for pattern in keys.patterns:
            words = pattern.split()
            signs.setdefault(_stem(words), []).extend(_signs(words))
        endings: dict[str, list[_Sign]] = {}
        for word in LAST if keys.has_default else ():
            endings[word] = _signs([word], _AFTER.get(word))
        for word, texts in _STATEMENTS.items() if keys.has_default else ():
            endings[word] = [_Sign(re.compile(text)) for text in texts]
        self._signs, self._endings, self._all_endings = signs, endings, tuple(endings)
        self._harmless: set[str] = set()
        self._suspicious: dict[str, list[re.Pattern[str]]] = {}

    def is_clean(self, text: str) -> bool:
        """Return True only if a text certainly has no secret, so that `Redactor.json` and `Redactor.text` would leave
        it unchanged. False means that it may have one.
        """
        parts = text.split()
        if not self._harmless.issuperset(parts) and self._has_signs(text, set(parts) - self._harmless):
            return False
        return not self._values.are_own_in(text)

    def _has_signs(self, text: str, parts: set[str]) -> bool:
        """Return whether parts of a text that are not known to be harmless may belong to a secret."""
        patterns: dict[re.Pattern[str], None] = {}
        for part in parts:
            known = self._suspicious.get(part)
            patterns.update(dict.fromkeys(self._learn(part) if known is None else known))
        if any(pattern.search(text) for pattern in patterns):
            return True
        first = self._values.patterns[:1]  # the others are always added with it
        may_be_value = "\\" in text and bool(first) and first[0] in patterns
        return may_be_value and next(iter(self._values.spans(text)), None) is not None

    def _learn(self, part: str) -> list[re.Pattern[str]]:
        """Return the patterns of secrets that a text with this part may contain, and cache them."""
        found: list[re.Pattern[str]] = [_ANY] if _HIDDEN.search(part) else []
        if "@" in part and ("://" in part or ":\\" in part):  # or ``:\/\/``, as PHP writes a URL in JSON
            found += self._values.patterns
        signs: dict[int, _Sign] = {}  # each only once, however many words it may be in
        may_be_value = False
        for folded in set(" ".join(as_written(part)).encode("utf-8", "replace").translate(_FOLDED).split()):
            signs.update((id(sign), sign) for sign in self._signs_of(folded.decode()))
            may_be_value = may_be_value or self._values.may_begin(folded)
        found += [sign.pattern for sign in signs.values() if sign.may_begin_in(part)]
        if may_be_value:
            found += self._values.patterns
        if len(part) <= _MAX_LENGTH:
            if len(self._harmless) + len(self._suspicious) >= _MAX_KNOWN:
                self._harmless, self._suspicious = set(), {}
            if found:
                self._suspicious[part] = found
            else:
                self._harmless.add(part)
        return found

    def _signs_of(self, word: str) -> list[_Sign]:
        """Return the signs that a word may be a part of."""
        signs = [sign for stem, signs in self._signs.items() if stem in word for sign in signs]
        if word.endswith(self._all_endings):
            signs += [sign for ending, signs in self._endings.items() if word.endswith(ending) for sign in signs]
        return signs


def _stem(words: list[str]) -> str:
    return next((stem for stem in _STEMS for word in words if stem in word), max(words, key=len))


def _signs(words: list[str], end: str | None = None) -> list[_Sign]:
    """Return the signs of a key with these words in a row.

    Each word has three spellings; a pattern that begins with a literal is searched faster than others.
    """
    first, *others = [dict.fromkeys((word, word.capitalize(), word.upper())) for word in words]
    is_alone = not others and end is None
    if end is None:
        end = "" if words[-1].isdigit() else "(?![a-z])"  # a letter would continue a word, but not a number
    rest = "".join(f"{_BETWEEN}(?:{'|'.join(spellings)})" for spellings in others)
    return [_Sign(re.compile(each + rest + end), "" if others else each, is_alone) for each in first]
