"""Identification while a request is served, from its body, its route or the framework's authentication."""

from __future__ import annotations

from typing import Any

from mlflow_middleware import mlflow_bridge
from mlflow_middleware._internal.guard import guarded
from mlflow_middleware.capture.body import UnstoredBody
from mlflow_middleware.identity import Identity
from mlflow_middleware.identity_sources import Source
from mlflow_middleware.trace import keys
from mlflow_middleware.trace.record import TraceRecord

Target = mlflow_bridge.RootSpan | mlflow_bridge.TracesInside

_CHANGING = frozenset({"path", "body", "jwt"})
"""Places whose values may become known, or invalid, while the request is served."""


class Identification:
    """Resolver of a request's ids. Precedence: `annotate`, then `identify`, then the sources or headers.

    Args:
        record: The request's record, with the ids from the headers.

    Attributes:
        is_late: Whether ids may become known only while the request is served.
    """

    __slots__ = (
        "_annotated",
        "_base",
        "_found",
        "_given",
        "_is_closed",
        "_is_sent",
        "_may_ask",
        "_record",
        "_values",
        "is_late",
    )

    def __init__(self, record: TraceRecord) -> None:
        self._record = record
        self._base = self._given = record.identity
        self._found = self._annotated = Identity()
        self._values: dict[Source, Any] = {}
        self.is_late = record.settings.identifies_late
        self._may_ask = self._is_closed = self._is_sent = False

    @guarded
    def look(self) -> None:
        """Read the sources without asking the framework, which might query a database or write a log record."""
        sources = self._record.settings.identity_sources
        if not self._is_closed and sources and sources.are_late:
            found, known = sources.identity(self._read), self._base.request_id
            if self._is_sent:  # the client must find the trace by the id that it received
                found = Identity(known, found.session_id, found.user_id)
            self._base = found.over(Identity(known))
            self._take()

    def ask(self, root: mlflow_bridge.RootSpan | None, inside: mlflow_bridge.TracesInside | None) -> None:
        """Read all sources and call `identify` once, when the response starts or ends without a start."""
        settings, record = self._record.settings, self._record
        if not self.is_late or self._is_closed:
            return
        is_first, self._may_ask = not self._may_ask, True
        own = _set_by_the_app(record, root)
        record.exchange.renew_parsed()
        self.look()
        found = None
        if is_first and settings.identify is not None:
            found = settings.identify(record.exchange)
            self._found = found.over(self._found) if found is not None else self._found
            self._take()
        _set_on(record, self._changes(own, found or Identity()), root or inside)
        self._is_sent = record.exchange.status is not None and "request_id" in settings.response_headers

    def annotate(self, given: Identity, target: Target | None) -> None:
        """Apply the ids that the app has given."""
        self._annotated = given.over(self._annotated)
        self._take()
        self._given = given.over(self._given)
        _set_on(self._record, given, target)

    def close(self) -> None:
        """Stop at the end of the request, and release the part of its body that was kept for identification."""
        self._is_closed = True
        self._values.clear()
        exchange = self._record.exchange
        exchange.forget_parsed()
        if isinstance(exchange.request_body, UnstoredBody):
            exchange.request_body.forget()

    def _read(self, source: Source) -> Any:
        if source.place == "scope" and not self._may_ask:
            return None
        if source.place in _CHANGING or source not in self._values:
            self._values.setdefault(source, None)  # an attribute of the app may log, which calls `look` again
            self._values[source] = source.read(self._record.exchange)
        return self._values[source]

    def _take(self) -> None:
        who = self._annotated.over(self._found.over(self._base))
        if who != self._record.identity:
            self._record.learn(who)

    def _changes(self, own: frozenset[str], found: Identity) -> Identity:
        """Return ``found`` plus ids that the sources have changed, unless the app set them with MLflow's functions."""
        who, before = self._record.identity, self._given
        self._given = who
        session_id = None if keys.SESSION in own or who.session_id == before.session_id else who.session_id
        user_id = None if keys.USER in own or who.user_id == before.user_id else who.user_id
        request_id = None if who.request_id == before.request_id else who.request_id
        return Identity(found.request_id or request_id, found.session_id or session_id, found.user_id or user_id)


def _set_by_the_app(record: TraceRecord, root: mlflow_bridge.RootSpan | None) -> frozenset[str]:
    """Return the metadata keys of session and user that the app has set with MLflow's own functions."""
    known = record.identity_metadata()
    return frozenset(key for key in (keys.SESSION, keys.USER) if root and root.metadata(key) != known.get(key))


def _set_on(record: TraceRecord, given: Identity, target: Target | None) -> None:
    """Set the given ids on MLflow's objects; leave the others, which the app may have set with MLflow's functions."""
    if target is None or given == Identity():
        return
    metadata = record.identity_metadata()
    if given.session_id is None:
        metadata.pop(keys.SESSION, None)
    if given.user_id is None:
        metadata.pop(keys.USER, None)
    request_id = given.request_id and record.identity.request_id
    tags = {keys.CLIENT_REQUEST_ID: request_id, **metadata} if request_id else metadata
    target.annotate(tags, metadata, request_id)
