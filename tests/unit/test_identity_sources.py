"""The sources of ids: each place, the first one with an id, and resistance to hostile clients."""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_middleware._internal import guard
from mlflow_middleware._internal.option_types import PresetName
from mlflow_middleware.capture.body import Body
from mlflow_middleware.exchange import Exchange
from mlflow_middleware.identity import Identity
from mlflow_middleware.identity_presets import PRESETS
from mlflow_middleware.identity_sources import MAX_PARTS, Source
from mlflow_middleware.routing import path_params
from mlflow_middleware.settings import Settings, SettingsError

FORM = "application/x-www-form-urlencoded"
CHAT = {"context": {"conversation_id": "c-1", "ids": ["o", "i"]}, "messages": [{"id": 1}, {"id": 2}], "a.b": {"c": "d"}}


def token(claims: object) -> str:
    """Return an unsigned JSON web token."""
    payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    return f"e30.{payload}.c2ln"


def exchange(
    headers: Mapping[str, str] | None = None,
    *,
    body: bytes | None = None,
    body_type: str = "application/json",
    limit: int = 65536,
    **known: Any,
) -> Exchange:
    """Return a request with these properties."""
    found = Exchange("POST", known.pop("path", "/"), {"content-type": body_type, **(headers or {})}, **known)
    found.request_body = Body(limit)
    found.request_body.add(body or b"")
    return found


def read(source: str, *of_exchange: Any, **known: Any) -> Any:
    """Return the value of a source in a request; a failure to read it fails the test."""
    before = guard.failures.copy()
    said = Source.parse(source).read(exchange(*of_exchange, **known))
    assert guard.failures == before
    return said


# --- places ---


@pytest.mark.parametrize(
    ("source", "headers", "said"),
    [
        ("header.X-Chat-ID", {"x-chat-id": "c-1"}, "c-1"),
        ("header.x-chat-id", {"x-chat-id": "jos\u00c3\u00a9"}, "jos\u00e9"),
        ("header.X-Chat-ID", {}, None),
        ("cookie.sid", {"cookie": 'a=1; sid="c-1"; sid=c-2'}, "c-1"),
        ("cookie.sid", {"cookie": "a=1,sid=c-1"}, "c-1"),
        ("cookie.sid", {"cookie": "mysid=c-1; sid"}, None),
        ("baggage.session.id", {"baggage": "user.id=jane, session.id = a%20b%2C;ttl=1 ,session.id=2"}, "a b,"),
        ("baggage.session.id", {"baggage": "session.id"}, None),
        ("jwt.sub", {"authorization": f"bearer {token({'sub': 'jane'})}"}, "jane"),
        ("jwt.act.sub", {"authorization": f"Bearer {token({'act': {'sub': 7}})}"}, "7"),
        ("jwt.https://shop.example/id", {"authorization": f"Bearer {token({'https://shop.example/id': 'j'})}"}, "j"),
        ("jwt.sub", {"authorization": f"Basic {token({'sub': 'jane'})}"}, None),
        ("jwt.sub", {"authorization": "Bearer an-opaque-token"}, None),
        ("jwt.sub", {"authorization": "Bearer a.b.c"}, None),
        ("jwt.sub", {"authorization": f"Bearer {token(['jane'])}"}, None),
        ("jwt.sub", {"authorization": f"Bearer {token({'sub': 'j' * 20_000})}"}, None),
    ],
)
def test_headers(source: str, headers: dict[str, str], said: object) -> None:
    """And prefixes of their values."""
    assert read(source, headers) == said


def test_a_token_that_the_app_has_refused_does_not_count() -> None:
    """It was not verified, so anybody may have written it."""
    assert read("jwt.sub", {"authorization": f"Bearer {token({'sub': 'jane'})}"}, status=401) is None


@pytest.mark.parametrize(("query", "said"), [("chat=c%201&chat=c-2", "c 1"), ("chat=", ""), ("", None)])
def test_the_query_string(query: str, said: object) -> None:
    """Decoded; the first one if it is repeated."""
    assert read("query.chat", query_string=query) == said


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("body.context.conversation_id", "c-1"),
        ("body.context.ids", ["o", "i"]),
        ("body.messages.0.id", "1"),
        ("body.messages.-1.id", "2"),
        ("body.messages.2.id", None),
        ("body.messages.x.id", None),
        ("body.a.b.c", "d"),
        ("body.context", None),
        ("body.context.conversation_id.more", None),
    ],
)
def test_json_bodies(source: str, said: object) -> None:
    """Keys, also with dots, and indexes."""
    assert read(source, body=json.dumps(CHAT).encode()) == said


@pytest.mark.parametrize(
    ("body", "body_type"),
    [
        (b"other=1&chat=c-1&chat=c-2", FORM),
        (b'{"chat": "c-1"}', FORM),
        (b'{"chat": "c-1"}', "text/plain;charset=UTF-8"),
        (b'\n[{"x": 1}, {"chat": "c-1"}]', ""),
        ('{"chat": "c-1"}'.encode("utf-16"), "application/json; charset=utf-16"),
        (
            b'--x\r\nContent-Disposition: form-data; name="chat"\r\n\r\nc-1\r\n--x--\r\n',
            "multipart/form-data; boundary=x",
        ),
    ],
)
def test_other_bodies(body: bytes, body_type: str) -> None:
    """Forms, and JSON with any content type."""
    source = "body.1.chat" if body_type == "" else "body.chat"
    assert read(source, body=body, body_type=body_type) == "c-1"


@pytest.mark.parametrize(
    ("body", "body_type"),
    [
        (b'{"first": "f", "chat": "c-123"}', "application/json"),
        (b"first=f&chat=c-123", FORM),
        (
            b'--x\r\nContent-Disposition: form-data; name="first"\r\n\r\nf\r\n'
            b'--x\r\nContent-Disposition: form-data; name="chat"\r\n\r\nc-123\r\n--x--\r\n',
            "multipart/form-data; boundary=x",
        ),
    ],
)
def test_a_truncated_value_does_not_count(body: bytes, body_type: str) -> None:
    """Half an id is another one; earlier values are still there."""
    limit = body.index(b"c-123") + 3

    assert read("body.chat", body=body, body_type=body_type, limit=limit) is None
    assert read("body.first", body=body, body_type=body_type, limit=limit) == "f"


@given(st.binary(max_size=200), st.sampled_from(["application/json", FORM, "multipart/form-data; boundary=x", ""]))
def test_no_body_makes_it_fail(body: bytes, body_type: str) -> None:
    """Whatever a client sends."""
    read("body.a.b", body=body, body_type=body_type, limit=100)
    read("body.a.b", {"content-encoding": "gzip"}, body=body, body_type=body_type)


def test_hostile_nesting_is_bounded() -> None:
    """Neither depth nor keys with many dots take long."""
    deep = b'{"a":' * 50_000
    parts = ["a"] * (MAX_PARTS - 1)
    wide: Any = "x"
    for _ in parts:
        wide = {".".join(parts[:count]): wide for count in range(1, MAX_PARTS)}

    assert read("body.a.b", body=deep, limit=10**6) is None
    assert read(f"body.{'.'.join(parts)}.z", body=json.dumps(wide)[:60_000].encode()) is None


class Session:
    """A session like Django's: it has keys, but is no mapping."""

    def __getitem__(self, key: str) -> object:
        return {"chat": "c-1", "_auth_user_id": "7"}[key]


USER = SimpleNamespace(id=uuid.UUID(int=7), name="jane", _secret="s", is_staff=True, get_username=lambda: "jane")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("scope.user.id", str(uuid.UUID(int=7))),
        ("scope.user.name", "jane"),
        ("scope.user._secret", None),
        ("scope.user.is_staff", None),
        ("scope.user.get_username", None),
        ("scope.user.__class__.__name__", None),
        ("scope.user.missing", None),
        ("scope.user.name.upper", None),
        ("scope.session.chat", "c-1"),
        ("scope.session._auth_user_id", "7"),
        ("scope.session.missing", None),
        ("scope.my.request.user", "j"),
        ("scope.clients.0", "127.0.0.1"),
    ],
)
@pytest.mark.parametrize("kind", [dict, SimpleNamespace])
def test_values_of_the_framework(kind: Any, source: str, said: object) -> None:
    """Keys and public attributes; nothing is called."""
    known = kind(user=USER, session=Session(), clients=("127.0.0.1", 1), my={"request": {"user": "j"}})

    assert read(source, request=known) == said


def test_an_attribute_that_raises_is_logged_once() -> None:
    """It costs the request nothing."""

    class User:
        @property
        def id(self) -> str:
            raise RuntimeError("no database here")

    assert Source.parse("scope.user.id").read(exchange(request={"user": User()})) is None
    assert guard.failures.pop(("reading scope.user.id", "RuntimeError")) == 1


@pytest.mark.parametrize(
    "known",
    [
        {"request": {"path_params": {"chat_id": "c-1"}}},
        {"request": SimpleNamespace(resolver_match=SimpleNamespace(kwargs={"chat_id": "c-1"}))},
        {"request": {"werkzeug.request": SimpleNamespace(view_args={"chat_id": "c-1"})}},
        {"request": {"route.url_args": {"chat_id": "c-1"}}},
        {"request": {"bfg.routes.matchdict": {"chat_id": "c-1"}}},
        {"request": {"wsgiorg.routing_args": ((), {"chat_id": "c-1"})}},
        {"request": {}, "route": "/chats/{chat_id}/m", "path": "/chats/c-1/m"},
        {"route": "/chats/<str:chat_id>", "path": "/chats/c-1"},
        {"route": "/a.b/{chat_id:path}", "path": "/a.b/c-1"},
    ],
)
def test_parameters_of_the_path(known: dict[str, Any]) -> None:
    """As the framework has them, or by the route's template."""
    assert read("path.chat_id", **known) == "c-1"


@pytest.mark.parametrize(
    "known",
    [
        {"request": {}},
        {"route": "/chats/{chat_id}", "path": "/chats/a/b"},
        {"route": "/{chat_id}/{chat_id}", "path": "/a/b"},
        {"route": "/aXb/{chat_id}", "path": "/a.b/c"},
    ],
)
def test_no_parameters_of_the_path(known: dict[str, Any]) -> None:
    """If there are none, or there is no template."""
    assert read("path.chat_id", **known) is None


# --- priorities ---


def identified(options: Mapping[str, Any], of: Exchange) -> Identity:
    """Return the identity by sources of which all values are known."""
    sources = Settings.load(**options).identity_sources
    assert sources is not None
    return sources.identity(lambda source: source.read(of))


@pytest.mark.parametrize(
    ("route", "path", "found"),
    [
        ("/a/{x}-{y}-{z}", "/a/1-2-3-4", {"x": "1-2", "y": "3", "z": "4"}),
        ("/a/{x}.{y}/b", "/a/report.v1.pdf/b", {"x": "report.v1", "y": "pdf"}),
        ("/{x}{y}", "/abc", {"x": "ab", "y": "c"}),
        ("/{bucket}/{key:path}", "/b/c/d", {"bucket": "b", "key": "c/d"}),
        ("/{a:path}/static/{b:path}", "/x/y/static/z/1", {"a": "x/y", "b": "z/1"}),
    ],
)
def test_several_parameters_of_a_template(route: str, path: str, found: dict[str, str]) -> None:
    """Divided like in frameworks."""
    assert path_params({}, route, path) == found


@pytest.mark.parametrize(
    ("route", "path"),
    [
        ("/{x}-{y}-{z}/q", "/" + "-a" * 1000 + "!"),
        ("/{x}-{y}-{z}-{v}-{w}/q", "/" + "-" * 2000),
        ("/{x}{y}{z}{v}/q", "/" + "a" * 2000),
        ("/{a:path}/{b:path}/{c:path}/{d:path}/x", "/a" * 1000),
        ("/{a:path}/{b:path}/x", "/a" * 30_000),
        ("/{a}/{b:path}/{c}-{d}/{e:path}/x", "/a-a" * 500),
    ],
)
def test_no_path_takes_long_to_match(route: str, path: str) -> None:
    """A path that does not fit its template can be divided in very many ways; this ends within the test's time."""
    assert path_params({}, route, path) == {}
    settings = Settings.load(routes={route: {"sample_ratio": 0.5}})
    assert settings.of_routes.of("GET", path).sample_ratio == 1


def test_the_first_source_with_an_id_wins() -> None:
    """In the order of the list, not of their time; unusable values are skipped."""
    options = {
        "session_id_from": ["body.chat", "header.X-Session-ID"],
        "user_id_from": "query.user, header.X-User-ID",
        "request_id_from": ["query.id", "header.X-Request-ID"],
    }
    headers = {"x-session-id": "by-header", "x-user-id": "by-header", "x-request-id": "by-header"}

    both = exchange(headers, body=b'{"chat": "by-body"}', query_string="user=%20&id=not+an+id")
    assert identified(options, both) == Identity("by-header", "by-body", "by-header")
    assert identified(options, exchange(headers)).session_id == "by-header"


def test_a_list_replaces_its_header() -> None:
    """Only its own: the others are read as before."""
    who = identified({"session_id_from": ["query.chat"]}, exchange({"x-session-id": "s", "x-user-id": "u"}))

    assert (who.session_id, who.user_id) == (None, "u")


def test_only_sessions_may_be_nested() -> None:
    """A list is stored as one text."""
    options = {"session_id_from": ["body.ids"], "user_id_from": ["body.ids"], "request_id_from": ["body.ids"]}

    assert identified(options, exchange(body=b'{"ids": ["o", 2, "i"]}')) == Identity(None, "o/2/i", None)
    assert identified(options, exchange(body=b'{"ids": ["o", {}]}')) == Identity()


def test_hostile_values_are_sanitized() -> None:
    """Like those of headers."""
    who = identified(
        {"session_id_from": ["body.s"], "user_id_from": ["body.u"], "request_id_from": ["body.r"]},
        exchange(body=json.dumps({"s": "a\r\nb\u202e", "u": "x" * 999, "r": "a\nb"}).encode()),
    )

    assert who == Identity(None, "a\ufffd\ufffdb\ufffd", "x" * 250)


def test_baggage_counts_if_it_is_trusted() -> None:
    """After the headers."""
    headers = {"baggage": "session.id=s-1,user.id=jane"}

    assert Settings.load().identity_sources is None
    trusted = {"trust_incoming_trace": True}
    assert identified(trusted, exchange(headers)) == Identity(None, "s-1", "jane")
    assert identified(trusted, exchange({**headers, "x-user-id": "u"})) == Identity(None, "s-1", "u")


# --- presets ---

SENT = {
    "databricks-apps": (
        {"x-forwarded-user": "1@w", "x-forwarded-email": "j@x.org", "x-request-id": "r-1", "x-session-id": "s-1"},
        Identity("r-1", "s-1", "1@w"),
    ),
    "open-webui": (
        {"x-openwebui-user-id": "u-1", "x-openwebui-user-email": "j@x.org", "x-openwebui-chat-id": "c-1"},
        Identity(None, "c-1", "u-1"),
    ),
    "librechat": ({"x-conversation-id": "c-1", "x-user-id": "u-1"}, Identity(None, "c-1", "u-1")),
    "cloudflare-access": (
        {"cf-access-authenticated-user-email": "j@x.org", "cf-ray": "7d4f-SJC"},
        Identity("7d4f-SJC", None, "j@x.org"),
    ),
    "azure-easy-auth": (
        {"x-ms-client-principal-id": "u-1", "x-ms-client-principal-name": "j@x.org"},
        Identity(None, None, "u-1"),
    ),
    "iap": (
        {
            "x-goog-authenticated-user-email": "accounts.google.com:j@x.org",
            "x-goog-authenticated-user-id": "accounts.google.com:1234",
        },
        Identity(None, None, "1234"),
    ),
}


@pytest.mark.parametrize("preset", SENT)
def test_headers_of_platforms(preset: str) -> None:
    """As in their documentation."""
    headers, who = SENT[preset]

    assert identified({"identity_preset": preset}, exchange(headers)) == who


@pytest.mark.parametrize("preset", [name for name, (headers, _) in SENT.items() if "x-user-id" not in headers])
def test_a_clients_own_header_does_not_count_as_the_user(preset: str) -> None:
    """Behind a platform, the header of the settings is ignored."""
    assert identified({"identity_preset": preset}, exchange({"x-user-id": "forged"})).user_id is None


def test_the_user_of_librechat_is_in_the_body() -> None:
    """As its parameters are by default."""
    assert identified({"identity_preset": "librechat"}, exchange(body=b'{"user": "u-1"}')).user_id == "u-1"


def test_a_list_beats_the_preset() -> None:
    """Only for its own id."""
    options = {"identity_preset": "open-webui", "user_id_from": ["header.X-OpenWebUI-User-Email"]}

    assert identified(options, exchange(SENT["open-webui"][0])) == Identity(None, "c-1", "j@x.org")


def test_each_preset_is_an_option_and_documented() -> None:
    """And no other."""
    assert set(get_args(PresetName)) == set(PRESETS) == set(SENT)
    assert all(preset.documented.startswith("https://") for preset in PRESETS.values())


# --- options ---


@pytest.mark.parametrize(
    "wrong",
    [
        "X-Chat-ID",
        "header.",
        "header.X Chat",
        "headers.X-Chat-ID",
        "body",
        "body..id",
        "scope.user.",
        f"body{'.a' * (MAX_PARTS + 1)}",
    ],
)
def test_a_wrong_source_is_named(wrong: str) -> None:
    """With the option, the value and the allowed values."""
    with pytest.raises(SettingsError, match=r"option 'session_id_from'.* is not a source; use header\.NAME") as raised:
        Settings.load(session_id_from=["header.X-Session-ID", wrong])
    assert repr(wrong) in str(raised.value)


@pytest.mark.parametrize("options", [{"user_id_from": []}, {"identity_preset": "azure"}, {"request_id_from": 5}])
def test_other_wrong_values_are_named(options: dict[str, Any]) -> None:
    """Like those of any option."""
    with pytest.raises(SettingsError, match=f"option '{next(iter(options))}'"):
        Settings.load(**options)


def test_the_environment_has_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    """Separated by commas, or as JSON."""
    monkeypatch.setenv("MLFLOW_MIDDLEWARE_SESSION_ID_FROM", "body.chat_id, header.X-Session-ID")
    monkeypatch.setenv("MLFLOW_MIDDLEWARE_USER_ID_FROM", '["query.a,b"]')

    settings = Settings.load()
    assert settings.session_id_from == ("body.chat_id", "header.X-Session-ID")
    assert settings.user_id_from == ("query.a,b",)
