"""Django's regular expressions and its extensions' routers have readable names; the status decides about errors."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.frameworks.asking import Asked, ask

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the extensions' own

DIVIDED = "integer division or modulo by zero"


@pytest.mark.parametrize(
    ("path", "status", "name", "exceptions"),
    [
        ("/chats/2", 200, "GET /chats/<int:n>", ()),
        ("/chats/0", 404, "GET /chats/<int:n>", ()),
        ("/chats/1", 500, "GET /chats/<int:n>", (DIVIDED,)),
        ("/old/2/", 200, "GET /old/{n}/page-{var}/", ()),
        ("/numbered/2/", 200, "GET /numbered/{var}/", ()),
        ("/drf/things/", 200, "GET /drf/things/", ()),
        ("/drf/things/2/", 200, "GET /drf/things/{pk}/", ()),
        ("/drf/things/0/", 404, "GET /drf/things/{pk}/", ()),
        ("/drf/things/503/", 500, "GET /drf/things/{pk}/", ()),
        ("/drf/things/1/", 500, "GET /drf/things/{pk}/", (DIVIDED,)),
        ("/ninja/items/2", 200, "GET /ninja/items/<int:n>", ()),
        ("/ninja/items/1", 500, "GET /ninja/items/<int:n>", (DIVIDED,)),
        ("/unsaid/3", 200, "GET /said/{n}", ()),
        ("/nothing", 404, "GET", ()),
    ],
)
def test_a_name_is_readable(path: str, status: int, name: str, exceptions: tuple[str, ...]) -> None:
    """Also for expressions that an extension generates."""
    from tests.frameworks import django_project

    answer, asked = ask(django_project.wsgi, path, is_asgi=False)

    assert answer.status == status
    assert asked == Asked(name, "ERROR" if status == 500 else "OK", exceptions)


@pytest.mark.parametrize("is_async", [False, True])
def test_a_request_that_cannot_be_described_is_served(is_async: bool) -> None:
    """It has no trace; failures of tracing never reach the app."""
    from django.http import HttpRequest, HttpResponse

    from mlflow_middleware.django import TraceMiddleware
    from tests.frameworks import django_project

    assert django_project.wsgi  # Django is set up

    def view(request: HttpRequest) -> HttpResponse:
        return HttpResponse("served")

    async def async_view(request: HttpRequest) -> HttpResponse:
        return view(request)

    request = HttpRequest()
    request.META["QUERY_STRING"] = None
    answer: Any = TraceMiddleware(async_view if is_async else view)(request)

    assert (asyncio.run(answer) if is_async else answer).content == b"served"
