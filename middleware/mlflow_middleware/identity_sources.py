"""Sources of a request's ids besides the three headers: ``session_id_from``, ``user_id_from`` and
``request_id_from``.

A source is a place and a name:

=====================  ===============================================================================================
``header.X-Chat-ID``   a request header
``query.chat``         a parameter of the query string
``cookie.sid``         a cookie
``path.chat_id``       a parameter of the route's path
``body.chat.id``       a field of the body, JSON or a form, as far as the app has read it; ``body.messages.0.id``
``scope.user.id``      a key or an attribute of the ASGI scope, the WSGI environ or Django's request; never a call
``jwt.sub``            a claim of the bearer token, which is **not** verified: that is up to the app. Ignored if
                       the response's status is 401
``baggage.session.id`` an entry of the W3C ``baggage`` header
=====================  ===============================================================================================

The first source in a list with a usable value wins. Values are sanitized like those of the headers.
"""

from __future__ import annotations

import base64
import json
import re
import uuid
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from mlflow_middleware import identity_presets
from mlflow_middleware._internal.guard import report
from mlflow_middleware.capture.content import form_fields
from mlflow_middleware.capture.fields import item_of, look_up, splits
from mlflow_middleware.exchange import Exchange
from mlflow_middleware.identity import (
    MLFLOW_SESSION_HEADER,
    Identity,
    clean_request_id,
    clean_session,
    clean_text,
    decode_header,
)
from mlflow_middleware.propagation import baggage_of

MAX_PARTS = 8
"""Maximum number of keys in the name of a source."""

MAX_TOKEN = 16 * 1024
"""Longest bearer token that is read, in characters."""

ALLOWED = (
    "header.NAME, query.NAME, cookie.NAME, path.NAME, body.FIELD, scope.NAME, jwt.CLAIM and baggage.KEY, "
    "where FIELD, NAME and CLAIM may be several keys separated by dots"
)
_FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")


class Source(NamedTuple):
    """A place where an id may be.

    Attributes:
        place: A key of `READERS`.
        name: The name to look up there.
        after: The delimiter after a prefix that is not part of the id; empty for none.
    """

    place: str
    name: str
    after: str = ""

    @classmethod
    def parse(cls, text: str, after: str = "") -> Source:
        """Parse a source as written in the options.

        Raises:
            ValueError: The text is not a source.
        """
        place, _, name = text.partition(".")
        is_name = _HEADER_NAME.fullmatch(name) if place == "header" else all(name.split("."))
        if place not in READERS or not is_name or name.count(".") >= MAX_PARTS:
            raise ValueError(f"{text!r} is not a source; use {ALLOWED}")
        return cls(place, name.lower() if place == "header" else name, after)

    def read(self, exchange: Exchange) -> Any:
        """Return the value at the source as text, or as a list of texts; None for any other value."""
        try:
            return _plain(READERS[self.place](exchange, self.name), self.after)
        except Exception as error:  # an attribute of the app may run any code
            report(f"reading {self.place}.{self.name}", error)
            return None


Read = Callable[[Source], Any]
"""Reads the value of a source."""


class Sources(NamedTuple):
    """The sources of a request's ids; the first source with a usable value wins."""

    request_id: tuple[Source, ...]
    session_id: tuple[Source, ...]
    user_id: tuple[Source, ...]

    def identity(self, read: Read) -> Identity:
        """Return the ids that the sources provide; None for the others.

        Args:
            read: Reads the value of a source.
        """
        return Identity(
            _first(self.request_id, read, _single(clean_request_id)),
            _first(self.session_id, read, clean_session),
            _first(self.user_id, read, _single(clean_text)),
        )

    def at_once(self, exchange: Exchange) -> Identity:
        """Return the ids that are known when a request starts; generate a request id if none is usable."""
        who = self.identity(lambda source: source.read(exchange) if source.place in EARLY else None)
        return who if who.request_id else Identity(uuid.uuid4().hex, who.session_id, who.user_id)

    def has(self, *places: str) -> bool:
        """Return whether any source is at one of these places."""
        return any(source.place in places for part in self for source in part)

    @property
    def are_late(self) -> bool:
        """Whether any source is known only while the request is served."""
        return any(source.place not in EARLY for part in self for source in part)


def _first(
    sources: tuple[Source, ...], read: Callable[[Source], Any], clean: Callable[[Any], str | None]
) -> str | None:
    return next((text for source in sources if (text := clean(read(source)))), None)


def _single(clean: Callable[[Any], str | None]) -> Callable[[Any], str | None]:
    """Reject a list as an id; only sessions can be nested."""
    return lambda value: None if isinstance(value, list) else clean(value)


def sources_of(
    given: tuple[tuple[str, ...] | None, ...], preset: str | None, headers: tuple[str, ...], *, trusts_baggage: bool
) -> Sources | None:
    """Combine the options: for each id the list that is given, else that of the preset, else the header.

    Args:
        given: The lists for request, session and user id; None for an option that is not set.
        preset: The preset's name, if any.
        headers: The names of the three headers.
        trusts_baggage: Whether to read W3C baggage after the header.

    Returns:
        The sources; None if only the headers are read.
    """
    if not any(given) and preset is None and not trusts_baggage:
        return None
    by_header = [[f"header.{name}"] for name in headers]
    by_header[1].append(f"header.{MLFLOW_SESSION_HEADER}")
    if trusts_baggage:
        by_header[1].append("baggage.session.id")
        by_header[2].append("baggage.user.id")
    known = identity_presets.PRESETS[preset] if preset else identity_presets.NONE
    parts = zip(given, known.lists, by_header, strict=True)
    after = known.after if preset else ""
    return Sources(*(_parsed(own, of_preset, header, after) for own, of_preset, header in parts))


def sources_of_jobs(headers: tuple[str, ...], own: Sources | None) -> dict[str, tuple[str, ...]]:
    """Return the options for jobs, which read the headers of `outbound_headers` before the app's own sources.

    Args:
        headers: The names of the three headers.
        own: The app's own sources.

    Returns:
        The options ``request_id_from``, ``session_id_from`` and ``user_id_from``.
    """
    request_id, session_id, user_id = (f"header.{name}" for name in headers)
    written = {
        "request_id_from": (request_id,),
        "session_id_from": (session_id, f"header.{MLFLOW_SESSION_HEADER}", "baggage.session.id"),
        "user_id_from": (user_id, "baggage.user.id"),
    }
    parts = zip(written.items(), own or ((), (), ()), strict=True)
    return {name: (*first, *(f"{each.place}.{each.name}" for each in others)) for (name, first), others in parts}


def _parsed(
    own: tuple[str, ...] | None, of_preset: tuple[str, ...], header: list[str], after: str
) -> tuple[Source, ...]:
    if own or not of_preset:
        return tuple(map(Source.parse, own or header))
    return tuple(Source.parse(text, after) for text in of_preset)


# --- places ---


def _header(exchange: Exchange, name: str) -> str | None:
    return decode_header(exchange.headers.get(name))


def _query(exchange: Exchange, name: str) -> Any:
    return _one(form_fields(exchange.query_string)[0].get(name))


def _cookie(exchange: Exchange, name: str) -> str | None:
    """Return a cookie (https://www.rfc-editor.org/rfc/rfc6265#section-4.2.1); servers join headers with a comma."""
    for pair in re.split("[;,]", exchange.headers.get("cookie", "")):
        key, separator, value = pair.partition("=")
        if separator and key.strip() == name:
            return decode_header(value.strip().strip('"'))
    return None


def _path(exchange: Exchange, name: str) -> Any:
    return exchange.path_params.get(name)


def _body(exchange: Exchange, name: str) -> Any:
    found = look_up(exchange.body, name)
    return _one(found) if exchange.headers.get("content-type", "").lower().startswith(_FORMS) else found


def _scope(exchange: Exchange, name: str) -> Any:
    return _attribute(exchange.request, name)


def _jwt(exchange: Exchange, name: str) -> Any:
    """Return a claim of an unverified token (https://www.rfc-editor.org/rfc/rfc7519); its sender may write anything."""
    scheme, _, token = exchange.headers.get("authorization", "").partition(" ")
    parts = token.strip().split(".")
    if scheme.lower() != "bearer" or len(parts) != 3 or len(token) > MAX_TOKEN or exchange.status == 401:
        return None
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (ValueError, RecursionError):
        return None
    return look_up(claims, name)


def _baggage(exchange: Exchange, name: str) -> str | None:
    return baggage_of(exchange.headers.get("baggage", "")).get(name)


READERS: dict[str, Callable[[Exchange, str], Any]] = {
    "header": _header,
    "query": _query,
    "cookie": _cookie,
    "path": _path,
    "body": _body,
    "scope": _scope,
    "jwt": _jwt,
    "baggage": _baggage,
}
"""Place -> function that reads a name there."""

EARLY = frozenset({"header", "query", "cookie", "baggage"})
"""Places whose values are complete and final when a request starts."""


# --- values ---


def _one(value: Any) -> Any:
    """Return the first value of a repeated parameter."""
    return value[0] if isinstance(value, list) and value else value


def _plain(value: Any, after: str) -> Any:
    if isinstance(value, list | tuple):
        parts = [_plain(each, after) for each in value]
        return parts if all(isinstance(part, str) for part in parts) else None
    if isinstance(value, bool) or not isinstance(value, str | int | uuid.UUID):
        return None
    text = str(value)
    return text.rpartition(after)[2] if after else text


def _attribute(value: Any, path: str) -> Any:
    """Return the value at a path of keys and attributes, without calls; a name with a leading underscore is a key."""
    if not path:
        return value
    for key, rest in splits(path):
        inner = _inside(value, key)
        if inner is not None and (found := _attribute(inner, rest)) is not None:
            return found
    return None


def _inside(value: Any, key: str) -> Any:
    if isinstance(value, Mapping):
        return value.get(key)
    if isinstance(value, list | tuple):
        return item_of(value, key)
    found = None if key.startswith("_") else getattr(value, key, None)
    if found is None and hasattr(type(value), "__getitem__") and not isinstance(value, str | bytes):
        try:
            return value[key]  # such as Django's session
        except (LookupError, TypeError):
            return None
    return found
