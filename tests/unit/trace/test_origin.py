"""The origin of a request, as far as the proxies are trusted."""

from __future__ import annotations

import functools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_middleware._internal.networks import Networks
from mlflow_middleware.exchange import Exchange
from mlflow_middleware.settings import Settings, SettingsError
from mlflow_middleware.trace.client import client_attributes
from mlflow_middleware.trace.description import describe
from mlflow_middleware.trace.record import TraceRecord

PROXY, OUTER, CLIENT = "10.0.0.1", "10.0.0.2", "203.0.113.7"


def asked(client: str = PROXY, **headers: str) -> Exchange:
    """Return a request from this peer with these headers."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Exchange("GET", "/", {"host": "inner:8000", **named}, client=client)


@functools.cache
def trusting(*trusted: str) -> Settings:
    """Return the settings of an app behind these proxies."""
    return Settings.load(trusted_proxies=trusted)


def said_of(exchange: Exchange, *trusted: str) -> tuple[object, object, str]:
    """Return the client's address, the scheme and the host and port in the trace."""
    record = TraceRecord(exchange, trusting(*trusted))
    attributes = {**client_attributes(record), **describe(record).all_attributes()}
    port = attributes.get("server.port")
    host = str(attributes["server.address"]) + (f":{port}" if port else "")
    return attributes["client.address"], attributes["url.scheme"], host


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"x_forwarded_for": CLIENT}, (CLIENT, "http", "inner:8000")),
        ({"x_forwarded_for": f"{CLIENT}, {OUTER}"}, (CLIENT, "http", "inner:8000")),
        ({"x_forwarded_for": f"6.6.6.6, {CLIENT}, {OUTER}"}, (CLIENT, "http", "inner:8000")),
        ({"x_forwarded_for": f"{CLIENT}:4711"}, (CLIENT, "http", "inner:8000")),
        ({"x_forwarded_for": "[2001:db8::1]:4711"}, ("2001:db8::1", "http", "inner:8000")),
        ({"x_forwarded_for": "2001:db8::1"}, ("2001:db8::1", "http", "inner:8000")),
        ({"x_forwarded_for": OUTER}, (OUTER, "http", "inner:8000")),
        ({"x_forwarded_proto": "https"}, (PROXY, "https", "inner:8000")),
        ({"x_forwarded_proto": "gopher"}, (PROXY, "http", "inner:8000")),
        ({"x_forwarded_for": CLIENT, "x_forwarded_proto": "HTTPS"}, (CLIENT, "https", "inner:8000")),
        (
            {"x_forwarded_for": f"6.6.6.6,{CLIENT}", "x_forwarded_proto": "http,https"},
            (CLIENT, "https", "inner:8000"),
        ),
        ({"x_forwarded_for": CLIENT, "x_forwarded_host": "evil.test, shop.example"}, (CLIENT, "http", "shop.example")),
        ({"forwarded": f"for={CLIENT};proto=https;host=shop.example"}, (CLIENT, "https", "shop.example")),
        ({"forwarded": f'For="[2001:db8::1]:4711"; Proto=https, for={OUTER}'}, ("2001:db8::1", "https", "inner:8000")),
        ({"forwarded": "for=unknown"}, ("unknown", "http", "inner:8000")),
        ({"forwarded": "for=6.6.6.6;host=evil.test", "x_forwarded_for": CLIENT}, (CLIENT, "http", "inner:8000")),
        ({"forwarded": "", "x_forwarded_for": CLIENT}, (CLIENT, "http", "inner:8000")),
        ({"forwarded": "nonsense", "x_forwarded_for": CLIENT}, (CLIENT, "http", "inner:8000")),
        (
            {"forwarded": "by=10.0.0.9", "x_forwarded_for": CLIENT, "x_forwarded_proto": "https"},
            (CLIENT, "https", "inner:8000"),
        ),
        ({"forwarded": "proto=https;host=shop.example"}, (PROXY, "https", "shop.example")),
        ({}, (PROXY, "http", "inner:8000")),
        ({"x_forwarded_for": " , "}, (PROXY, "http", "inner:8000")),
    ],
)
def test_a_trusted_proxys_headers_are_believed(headers: dict[str, str], expected: tuple[str, str, str]) -> None:
    """Up to the first address, from the right, that is no trusted proxy."""
    assert said_of(asked(**headers), "10.0.0.0/8") == expected


@pytest.mark.parametrize("trusted", [(), ("10.0.0.0/8",)])
def test_other_clients_headers_are_not_believed(trusted: tuple[str, ...]) -> None:
    """A client may send these headers, too."""
    exchange = asked(CLIENT, x_forwarded_for="6.6.6.6", x_forwarded_proto="https", forwarded="for=6.6.6.6;host=evil")

    assert said_of(exchange, *trusted) == (CLIENT, "http", "inner:8000")


@pytest.mark.parametrize(
    ("trusted", "address", "expected"),
    [
        (["*"], CLIENT, True),
        (["*"], "", True),
        (["unix"], "", True),
        (["unix"], "unix:/run/app.sock", True),
        (["unix"], CLIENT, False),
        (["10.0.0.0/8"], "", False),
        (["10.0.0.0/8"], "no address", False),
        (["10.0.0.0/8"], "::ffff:10.1.2.3", True),
        (["10.0.0.1/8"], "10.9.9.9", True),
        (["fd00::/8"], "fd00::1", True),
        (["fd00::/8"], PROXY, False),
    ],
)
def test_networks(trusted: list[str], address: str, expected: bool) -> None:
    """Of both versions, sockets, and anything."""
    assert Networks(trusted).has(address) is expected


def test_an_invalid_network_is_a_wrong_option() -> None:
    """The error has the entry, and the allowed values."""
    with pytest.raises(SettingsError, match=r"trusted_proxies.*'10\.0\.0\.0/99' is not an IP address or network"):
        Settings.load(trusted_proxies="unix,10.0.0.0/99")


def test_the_trace_has_both_addresses() -> None:
    """The client's and its peer's, and the requested host; under the option for privacy."""
    exchange = asked(x_forwarded_for=CLIENT, x_forwarded_proto="https", x_forwarded_host="shop.test:8443")

    for how, addresses in (("full", (CLIENT, PROXY)), ("network", ("203.0.113.0", "10.0.0.0")), ("none", (None, None))):
        record = TraceRecord(exchange, Settings.load(trusted_proxies=[PROXY], client_address=how))
        said = client_attributes(record)
        assert (said["client.address"], said["network.peer.address"]) == addresses
        around = describe(record).all_attributes()
        assert (around["url.scheme"], around["server.address"], around["server.port"]) == (
            "https",
            "shop.test",
            8443,
        )


ANY_HEADER = st.text(st.characters(max_codepoint=255), max_size=300) | st.text('for=;,"[]:.0123456789 ab', max_size=300)


@given(ANY_HEADER, ANY_HEADER, ANY_HEADER)
def test_odd_headers_do_no_harm(forwarded: str, client: str, scheme: str) -> None:
    """There is always an origin, and its scheme is one of the two."""
    for headers in ({"forwarded": forwarded}, {"x_forwarded_for": client, "x_forwarded_proto": scheme}):
        assert said_of(asked(**headers), "10.0.0.0/8")[1] in ("http", "https")
