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

_SIGNS = {
    "tokens": r"(?i:tokens)(?![a-z])(?!\\*[\"']?\s*[:=]\s*\d)",
    "key": r"(?i:key)(?![a-z])[^A-Za-z0-9]{1,20}[A-Za-z0-9+/]{20}",
}
_STATEMENTS = {"curl": r"-u\b|-user", "wget": r"-user", "identified": r"(?i:identified by)"}
"""Shapes of secrets that have no key."""

_MAX_WORDS = 10_000
"""Words that are remembered as harmless: a language has few that are used often."""

_IS_WORD = re.compile(rb"[a-z]{1,20}|[a-z0-9]{1,3}")


class Glance:
    """Whether a text has no secret, as far as a quick look shows.

    Args:
        keys: Knows which keys hold secrets.
        values: Finds what is a secret by itself.
    """

    def __init__(self, keys: Keys, values: Values) -> None:
        self._values = values
        signs: dict[str, list[str]] = {}
        for pattern in keys.patterns:
            words = pattern.split()
            signs.setdefault(_stem(words), []).append(_sign(words))
        endings: dict[str, list[str]] = {}
        for word in LAST if keys.has_default else ():
            endings.setdefault(word, []).append(_SIGNS.get(word, _sign([word])))
        for word, sign in _STATEMENTS.items() if keys.has_default else ():
            endings.setdefault(word, []).append(sign)
        self._inside = _alternatives(signs, "(?=({}))")
        self._at_end = _alternatives(endings, "({})$")
        self._signs = {stem.encode(): re.compile("|".join(found)) for stem, found in signs.items()}
        self._endings = {word.encode(): re.compile("|".join(found)) for word, found in endings.items()}
        self._harmless: set[bytes] = set()

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
        suspects: set[re.Pattern[str]] = set()
        for word in words:
            found = [self._signs[stem] for stem in self._inside.findall(word)]
            found += [self._endings[ending] for ending in self._at_end.findall(word)]
            suspects.update(found)
            if self._values.may_begin(word):
                suspects.update(self._values.patterns)
            elif not found and len(self._harmless) < _MAX_WORDS and _IS_WORD.fullmatch(word):
                self._harmless.add(word)
        return any(pattern.search(text) for pattern in suspects)


def _alternatives(words: dict[str, list[str]], around: str) -> re.Pattern[bytes]:
    """Matches any of the words; nothing if there are none."""
    return re.compile(around.format("|".join(map(re.escape, words)) or "(?!)").encode())


def _stem(words: list[str]) -> str:
    return next((stem for stem in _STEMS for word in words if stem in word), max(words, key=len))


def _sign(words: list[str]) -> str:
    """What a text has in it where a key with these words in a row may be."""
    end = "" if words[-1].isdigit() else "(?![a-z])"  # a letter goes on with a word, but not with a number
    return _BETWEEN.join(f"(?i:{word})" for word in words) + end
