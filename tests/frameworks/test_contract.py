"""One contract for all frameworks, at their newest versions, with the plain middlewares."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from tests.frameworks.apps import ANSWERS_IN_SILENCE, ASGI, EXAMPLES, IS_ASGI, WSGI, example, litestar_inside, traced
from tests.frameworks.asking import Answer, Asked, ask_all

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # the frameworks' own
    pytest.mark.filterwarnings("ignore:pkg_resources:UserWarning"),
]

DIVIDED = "integer division or modulo by zero"

APPS = [(kind, name) for kind, known in (("asgi", ASGI), ("wsgi", WSGI), ("example", EXAMPLES)) for name in known]


@dataclass
class Chat:
    """A framework's app, and the outcome of a request to each path.

    Attributes:
        name: The framework's name.
        route: The route of ``/chats/{n}``.
        asked: Answers to chat 2, which exists, chat 0, which does not, chat 1, which fails, and to an unrouted path.
    """

    name: str
    route: str
    asked: list[tuple[Answer, list[Asked]]]


@pytest.fixture(scope="module", params=APPS, ids="-".join)
def chat(request: pytest.FixtureRequest) -> Chat:
    """Each framework in turn."""
    kind, name = request.param
    app, route = (example(name), EXAMPLES[name]) if kind == "example" else traced(name, kind, include="unrouted")
    prefix = "" if kind == "example" else "/v1"
    paths = [*(f"{prefix}/chats/{n}" for n in (2, 0, 1)), "/nothing/at/all"]
    is_asgi = kind == "asgi" or (kind, name) in IS_ASGI
    return Chat(name, route, ask_all(app, paths, is_asgi=is_asgi))


def test_an_answer_has_its_route(chat: Chat) -> None:
    """Its template, with the prefixes of routers and mounts."""
    answer, traces = chat.asked[0]

    assert (answer.status, answer.body.strip(b'"\n')) == (200, b"1 of 1")
    assert traces == [Asked(f"GET {chat.route}", "OK", ())]


def test_an_http_exception_is_no_error(chat: Chat) -> None:
    """It is the framework's own 404, raised by the handler."""
    answer, traces = chat.asked[1]

    assert answer.status == 404
    assert traces == [Asked(f"GET {chat.route}", "OK", ())]


@pytest.mark.parametrize(("kind", "name"), APPS[: len(ASGI) + len(WSGI)])
def test_a_404_of_a_handler_is_traced_by_default(kind: str, name: str) -> None:
    """Only a 404 that no route took is left out."""
    app, route = traced(name, kind)
    ((_, traces),) = ask_all(app, ["/v1/chats/0"], is_asgi=kind == "asgi")

    assert traces == [Asked(f"GET {route}", "OK", ())]


def test_an_exception_behind_a_500_is_recorded(chat: Chat) -> None:
    """It is recorded whether the framework handles it or raises it."""
    answer, traces = chat.asked[2]
    exceptions = () if chat.name in ANSWERS_IN_SILENCE else (DIVIDED,)

    assert answer.status == 500
    assert traces == [Asked(f"GET {chat.route}", "ERROR", exceptions)]


def test_a_path_without_a_route_has_none(chat: Chat) -> None:
    """The route of a mount, or a catch-all route, counts."""
    answer, traces = chat.asked[3]
    taken = {"fastapi": "GET /{version}", "dash": "GET /<path:path>", "blacksheep": "GET /*"}

    assert answer.status == (200 if chat.name == "dash" else 404)
    assert traces == [Asked(taken.get(chat.name, "GET"), "OK", ())]


def test_inside_a_framework_its_exceptions_pass_through() -> None:
    """An exception that it handles further out is no error."""
    asked = ask_all(litestar_inside(), [f"/v1/chats/{n}" for n in (2, 0, 1)], is_asgi=True)

    assert [answer.status for answer, _ in asked] == [200, 404, 500]
    assert [traces for _, traces in asked] == [
        [Asked("GET /v1/chats/{n}", "OK", ())],
        [Asked("GET /v1/chats/{n}", "OK", ())],
        [Asked("GET /v1/chats/{n}", "ERROR", (DIVIDED,))],
    ]
