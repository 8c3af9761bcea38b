"""The attributes of a trace that describe the client and the requested address, as far as the options allow."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import unquote, unquote_plus

from mlflow_middleware.capture import MAX_ATTRIBUTE
from mlflow_middleware.identity import clean_text, decode_header, pseudonym
from mlflow_middleware.settings import Settings
from mlflow_middleware.trace.origin import origin_of
from mlflow_middleware.trace.record import RecordedException, TraceRecord

_MAX_QUERY = 4 * MAX_ATTRIBUTE
"""Maximum number of characters of a path and of a query string that are processed; fewer are kept."""

_USER_IN_BAGGAGE = re.compile(r"((?:^|,)\s*user\.id\s*=)([^,;]*)")

_NETWORK = {4: 24, 6: 48}
"""Length of an IP address's network prefix by IP version, in bits."""


def client_attributes(record: TraceRecord) -> dict[str, str | list[str] | None]:
    """Return path, query, address, user agent and captured headers: attributes that differ between requests."""
    exchange, settings = record.exchange, record.settings
    query = exchange.query_string
    query = storable_query(query[:_MAX_QUERY], settings) if query and record.keeping.inputs else ""
    origin = settings.trusted_networks and origin_of(exchange, settings.trusted_networks)
    agent = exchange.headers.get("user-agent") if settings.capture_user_agent else None
    return {
        "url.path": clean_text(_path(record), MAX_ATTRIBUTE),
        "url.query": clean_text(settings.redactor.query(query), MAX_ATTRIBUTE) if query else None,
        "client.address": _address(origin.client if origin else exchange.client, settings),
        "network.peer.address": _address(exchange.client, settings) if origin else None,
        "user_agent.original": clean_text(agent, MAX_ATTRIBUTE),
        **{f"http.request.header.{name.lower()}": _header(name, record) for name in settings.capture_headers},
    }


def _path(record: TraceRecord) -> str | None:
    """Return the path; if the path may identify the user, return the route instead, or None until it is known."""
    exchange = record.exchange
    if record.keeping.path:
        return record.settings.redactor.string(exchange.path[:_MAX_QUERY])
    return exchange.route if record.is_complete else None


def _header(name: str, record: TraceRecord) -> list[str] | None:
    settings = record.settings
    value = clean_text(decode_header(record.exchange.headers.get(name.lower())), MAX_ATTRIBUTE)
    if not value:
        return None
    if settings.hmac_key and (name.lower() == "baggage" or name.lower() in settings.user_names["header"]):
        return [_without_user(name.lower(), value, settings)]
    return [settings.redactor.value(name, value)]


def _without_user(name: str, value: str, settings: Settings) -> str:
    """Return a header that identifies the user, with the pseudonym instead."""
    if name != "baggage":
        after = settings.user_names["header"][name]
        return _hidden(value.rpartition(after)[2] if after else value, settings)
    hidden = _USER_IN_BAGGAGE.sub(lambda match: match[1] + _hidden(unquote(match[2].strip()), settings), value)
    return settings.redactor.value(name, hidden)


def storable_query(query: str, settings: Settings) -> str:
    """Return a query string with pseudonyms instead of the user ids in it."""
    names = settings.user_names["query"]
    if not (names and settings.hmac_key):
        return query
    pairs = (part.partition("=") for part in query.split("&"))
    return "&".join(
        f"{key}={_hidden(unquote_plus(value), settings)}"
        if value and unquote_plus(key) in names
        else key + equals + value
        for key, equals, value in pairs
    )


def _hidden(user_id: str, settings: Settings) -> str:
    return pseudonym(clean_text(user_id) or user_id, settings.hmac_key or b"")


def _address(address: str, settings: Settings) -> str | None:
    if settings.client_address == "full":
        return clean_text(address, MAX_ATTRIBUTE)
    if settings.client_address == "none":
        return None
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:  # a socket's path, or empty
        return None
    if isinstance(ip, ipaddress.IPv6Address):
        ip = ip.ipv4_mapped or ip
    return str(ipaddress.ip_network((ip, _NETWORK[ip.version]), strict=False).network_address)


def redacted_exceptions(record: TraceRecord) -> tuple[RecordedException, ...]:
    """Return the app's exceptions, without the secrets in messages and stack traces, or without both texts."""
    if not record.keeps_words:
        return tuple(map(_without_words, record.exceptions))
    redact = record.settings.redactor.exception
    return tuple(RecordedException(each.time, redact(each.attributes), each.type) for each in record.exceptions)


def _without_words(exception: RecordedException) -> RecordedException:
    kind = exception.attributes["exception.type"]
    return RecordedException(exception.time, {"exception.type": kind}, exception.type)
