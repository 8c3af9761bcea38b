"""A quick look at a text: most have no secret, and it takes a few us to see that."""

from __future__ import annotations

import re
from typing import NamedTuple

from mlflow_middleware.capture.secret_keys import LAST, Keys
from mlflow_middleware.capture.secret_values import Values, as_written

_FOLDED = bytes(char if chr(char).isalnum() and char < 128 else 32 for char in bytes(range(256)).lower())
"""Lower case; what is no letter or digit of ASCII becomes a space."""

_HIDDEN = re.compile(r"\\u00[0-7]|%[0-9A-Fa-f]{2}|\0")
"""A character of ASCII that is written as its number, in JSON, or any in a form; or UTF-16 that does not say so."""

_ANY = re.compile("")

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

_MAX_KNOWN, _MAX_LENGTH = 20_000, 40
"""Words, with what stands around them, that are remembered, and characters of one: few are used often."""


class _Sign(NamedTuple):
    """What a text with a secret may have in it.

    Attributes:
        pattern: Finds it.
        spelling: What one part of the text has to have in it, if anything.
        is_alone: Whether it stands in one part.
    """

    pattern: re.Pattern[str]
    spelling: str = ""
    is_alone: bool = False

    def may_begin_in(self, part: str) -> bool:
        """Return whether it may be found in a text with that part, because of that part."""
        return self.spelling in part and not (self.is_alone and self.pattern.search(part) is None)


class Glance:
    """Whether a text has no secret, as far as a quick look shows.

    Args:
        keys: Knows which keys hold secrets.
        values: Finds what is a secret by itself.
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
        """Return whether a quick look shows that there is no secret in a text: `Redactor.json` and `Redactor.text`
        would leave it as it is. False says nothing.
        """
        parts = text.split()
        if not self._harmless.issuperset(parts) and self._has_signs(text, set(parts) - self._harmless):
            return False
        return not self._values.are_own_in(text)

    def _has_signs(self, text: str, parts: set[str]) -> bool:
        """Return whether parts of a text that are not known as harmless may belong to a secret."""
        patterns: dict[re.Pattern[str], None] = {}
        for part in parts:
            known = self._suspicious.get(part)
            patterns.update(dict.fromkeys(self._learn(part) if known is None else known))
        if any(pattern.search(text) for pattern in patterns):
            return True
        first = self._values.patterns[:1]  # with which the others are
        may_be_value = "\\" in text and bool(first) and first[0] in patterns
        return may_be_value and next(iter(self._values.spans(text)), None) is not None

    def _learn(self, part: str) -> list[re.Pattern[str]]:
        """What a text with this part may have in it, if it has a secret."""
        found: list[re.Pattern[str]] = [_ANY] if _HIDDEN.search(part) else []
        if "@" in part and ("://" in part or ":\\" in part):  # as PHP writes an address in JSON: ``:\/\/``
            found += self._values.patterns
        signs: dict[int, _Sign] = {}  # each is looked for once, however many words it may be in
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
    """What a text has in it where a key with these words in a row may be.

    A word is written in one of three ways; patterns that begin with a text are found faster than others.
    """
    first, *others = [dict.fromkeys((word, word.capitalize(), word.upper())) for word in words]
    is_alone = not others and end is None
    if end is None:
        end = "" if words[-1].isdigit() else "(?![a-z])"  # a letter goes on with a word, but not with a number
    rest = "".join(f"{_BETWEEN}(?:{'|'.join(spellings)})" for spellings in others)
    return [_Sign(re.compile(each + rest + end), "" if others else each, is_alone) for each in first]
