"""Values that are secrets under any key: a few patterns with hardly any false positives."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Iterator

DEFAULT = "default"
"""The entry in a list of patterns that stands for those below."""

_BEFORE = r"(?<![A-Za-z0-9_-])"
_START = r"(?<![A-Za-z0-9])"

_OTHERS = (
    r"r8_|pplx-|xai-|csk-|nvapi-|tvly-|pcsk_|lsv2_(?:pt|sk)_|jina_|"  # models and their tools
    r"ya29\.|GOCSPX-|hv[sb]\.|dckr_pat_|dop_v1_|pypi-|shp(?:at|ca|pa|ss)_|glsa_|glc_|sbp_|sb_secret_|sntry[su]_|ATATT3|"
    r"PMAK-|NRAK-|ntn_|lin_api_|rubygems_|gl(?:rt|dt|ptt|cbt|ft|soat|agent)-|xoxe\."
)
"""Prefixes of other providers' keys."""

_PATTERNS = (
    _BEFORE + r"sk-(?=[A-Za-z_-]{0,48}[0-9])[A-Za-z0-9_-]{16,}",  # OpenAI, Anthropic and others
    _BEFORE + r"[sr]k_(?:live|test)_[A-Za-z0-9]{10,}|" + _START + r"whsec_[A-Za-z0-9+/=]{16,}",  # Stripe
    _BEFORE
    + r"gh[pousr]_[A-Za-z0-9]{20,}|"
    + _START
    + r"github_pat_[A-Za-z0-9_]{20,}|"
    + _BEFORE
    + r"glpat-[\w-]{16,}",
    _START + r"(?:AKIA|ASIA)[A-Z0-9]{16}(?![A-Za-z0-9])",  # AWS
    _BEFORE + r"xox[a-z]-[A-Za-z0-9-]{10,}|" + _BEFORE + r"xapp-[A-Za-z0-9-]{20,}",  # Slack
    _START + r"AIza[A-Za-z0-9_-]{35}|" + _BEFORE + r"(?:hf|npm|gsk)_[A-Za-z0-9]{24,}",
    _START + r"dapi[0-9a-f]{32}(?:-[0-9])?(?![A-Za-z0-9])",  # Databricks
    _BEFORE + rf"(?:{_OTHERS})(?=[A-Za-z_-]{{0,48}}[0-9])[A-Za-z0-9_-]{{20,}}",
    _BEFORE + r"SG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}",  # SendGrid
    r"hooks\.slack\.com/(?:services|workflows)/[A-Za-z0-9/_-]{20,}|discord(?:app)?\.com/api/webhooks/[0-9]+/[\w-]{20,}",
    _BEFORE + r"eyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*){2,4}",  # JWT
    r"(?s)-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY[A-Z ]{0,10}-----.*?(?:-----END [A-Z0-9 ]{0,40}-----|\Z)",
)
_SHARED = (
    r"\b[Tt]oken (?P<token>[0-9a-f]{32,})",
    r"(?i:\bbearer(?: |%20|\+){1,9})(?P<bearer>(?=[^\s\"'\\,;<>]{0,300}[0-9])[A-Za-z0-9._~+/%=-]{12,})",
    r"(?i:\bbearer )(?P<short>(?=[A-Za-z._~+/=-]{0,12}[0-9])[A-Za-z0-9._~+/=-]{5,11}(?![A-Za-z0-9]))",
    r"(?i:\bbasic )(?P<basic>[A-Za-z0-9+/]{6,}={0,2})",
    r":\\*/\\*/[^\s/@:\"'<>]{0,200}:(?P<userinfo>[^\s/\"'<>]{1,300})@",
    r":\\*/\\*/(?P<user>(?=[A-Za-z_-]{0,40}[0-9])[A-Za-z0-9_-]{20,200})@",
)
"""Patterns in which only a group is the secret."""

_BEGINNING = re.compile(
    rb"(?:sk|rk|gh[pousr]|pat|glpat|xox[a-z]|xapp|hf|npm|gsk|whsec|bearer|basic|private)\Z|akia|asia|aiza|eyj|dapi"
    rb"|(?:r8|pplx|xai|csk|nvapi|tvly|pcsk|lsv2|jina|ya29|gocspx|hv[sb]|dckr|dop|pypi|shp(?:at|ca|pa|ss)|glsa|glc|sbp|sb"
    rb"|sntry[su]|pmak|nrak|ntn|lin|rubygems|gl(?:rt|dt|ptt|cbt|ft|soat|agent)|sg|hooks|discord|discordapp)\Z|atatt3"
)
"""The lower-case first word of each pattern."""


class Values:
    """Matcher of values that are secrets under any key.

    Args:
        patterns: Regular expressions; ``default`` stands for the built-in ones.
    """

    def __init__(self, patterns: Iterable[str]) -> None:
        given = list(patterns)
        self._has_default = DEFAULT in given
        self._own = [re.compile(each) for each in given if each != DEFAULT]
        self._whole = [*self._own, *(re.compile(each) for each in _PATTERNS if self._has_default)]
        self._shared = [re.compile(each) for each in _SHARED if self._has_default]
        self.patterns = (*self._whole, *self._shared)

    def may_begin(self, word: bytes) -> bool:
        """Return whether a built-in pattern, other than those for URLs, may begin with this lower-case word."""
        return self._has_default and _BEGINNING.match(word) is not None

    def are_own_in(self, text: str) -> bool:
        """Return whether one of the user's patterns may match; escapes as in JSON may hide a match."""
        return bool(self._own) and ("\\" in text or any(pattern.search(text) for pattern in self._own))

    def spans(self, text: str) -> Iterator[tuple[int, int]]:
        """Yield the spans of the secrets in a text."""
        for each in as_written(text):
            for pattern in self._whole:
                yield from (match.span() for match in pattern.finditer(each))
            for pattern in self._shared:
                for match in pattern.finditer(each):
                    group = match.lastgroup or ""
                    if group != "basic" or _is_user_and_password(match[group]):
                        yield match.span(group)


def as_written(text: str) -> tuple[str, ...]:
    """Return the text, and a copy with escaped line ends, as in JSON and Python, replaced by spaces: in ``\\nsk-…``, no
    word begins with ``nsk``. Both have the same length.
    """
    return (text, _ESCAPED.sub("  ", text)) if "\\" in text else (text,)


_ESCAPED = re.compile(r"\\[bfnrt]")


def _is_user_and_password(encoded: str) -> bool:
    try:
        return b":" in base64.b64decode(encoded + "=" * (-len(encoded) % 4))
    except (binascii.Error, ValueError):
        return False
