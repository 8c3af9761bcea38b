"""Request, session and user ids: from untrusted headers to an ``Identity`` that is safe to store.

Values from a client are never trusted. A request id that is not plain ASCII or is too long is replaced by a new one.
In session and user ids, control characters become U+FFFD and the length is bounded, so that no value can break out of
a header, a log line, a tag or a query.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import unicodedata
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

MAX_REQUEST_ID = 128
"""Longest accepted request id, in characters; a longer one is replaced."""

MAX_ID = 250
"""Maximum number of characters kept of a session or user id: MLflow's limit for a trace metadata value."""

MLFLOW_SESSION_HEADER = "mlflow-session-id"
"""The header in which MLflow's own distributed tracing propagates the session
(https://github.com/mlflow/mlflow/pull/20829); read if `session_id_header` is missing."""

SESSION_SEPARATOR = "/"
"""Separator between the parts of a session id that is given as a list."""

_REQUEST_ID = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._:/+=@~-]{{0,{MAX_REQUEST_ID - 1}}}")
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_CONTROL = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff]"
)
"""Characters that are not displayed as themselves: control and bidirectional characters, lone surrogates."""


@dataclass(frozen=True, slots=True)
class Identity:
    """The ids of one request. An id that ``identify`` leaves at None is read from the header.

    A session id may be given as a list, from the outermost session to the innermost; it is stored as ``a/b/c``.
    """

    request_id: str | None = None
    session_id: str | None = None
    user_id: str | None = None

    if TYPE_CHECKING:

        def __init__(
            self,
            request_id: str | None = None,
            session_id: str | Sequence[str] | None = None,
            user_id: str | None = None,
        ) -> None: ...

    def over(self, other: Identity) -> Identity:
        """Return this identity, sanitized, with missing ids taken from ``other``."""
        return Identity(
            clean_request_id(self.request_id) or other.request_id,
            clean_session(self.session_id) or other.session_id,
            clean_text(self.user_id) or other.user_id,
        )


def from_headers(
    headers: Mapping[str, str], request_id_header: str, session_id_header: str, user_id_header: str
) -> Identity:
    """Read an identity from request headers (lower-case names); generate a request id if none is usable."""
    return Identity(
        clean_request_id(headers.get(request_id_header)) or uuid.uuid4().hex,
        clean_text(decode_header(headers.get(session_id_header) or headers.get(MLFLOW_SESSION_HEADER))),
        clean_text(decode_header(headers.get(user_id_header))),
    )


def clean_request_id(value: object) -> str | None:
    """Return the request id if it is acceptable, else None.

    An acceptable id has 1 to 128 ASCII letters, digits and ``._:/+=@~-``, and starts with a letter or digit.
    """
    if value is None:
        return None
    text = str(value).strip()
    return text if _REQUEST_ID.fullmatch(text) else None


def clean_text(value: object, limit: int = MAX_ID) -> str | None:
    """Return ``value`` as printable text of at most ``limit`` characters; None if nothing is left."""
    if value is None:
        return None
    text = str(value)[: 4 * limit].strip()[:limit]
    if not text.isprintable():
        text = "".join(char if _is_harmless(char) else _REPLACEMENT for char in text)
    return text or None


def clean_session(value: object) -> str | None:
    """Return a session id as `clean_text` does, after joining the parts of a list."""
    if isinstance(value, list | tuple):
        value = SESSION_SEPARATOR.join(part for part in map(clean_text, value) if part)
    return clean_text(value)


def clean_lines(value: object, limit: int) -> str:
    """Return ``value`` as text that a terminal can show: as `clean_text` does, but keep line ends and tabs."""
    text = _CONTROL.sub(_REPLACEMENT, str(value)[:limit].replace("\r\n", "\n"))
    return text.strip()


def decode_header(value: str | None) -> str | None:
    """Re-decode a latin-1 header value as UTF-8, if its bytes are valid UTF-8."""
    if value is None or value.isascii():
        return value
    try:
        return value.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return value


def pseudonym(user_id: str, key: bytes) -> str:
    """Return HMAC-SHA256(key, user id) as 64 hexadecimal digits."""
    return hmac.new(key, user_id.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()


def _is_harmless(char: str) -> bool:
    """Return whether a character is printable or a space of any kind."""
    return char.isprintable() or unicodedata.category(char) == "Zs"
