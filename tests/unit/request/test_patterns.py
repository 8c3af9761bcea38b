"""Regular expressions of Django's routes, as readable names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_middleware.request.patterns import readable


@pytest.mark.parametrize(
    ("route", "name"),
    [
        ("chats/<int:n>", "/chats/<int:n>"),
        ("", "/"),
        ("we(ird)/<str:x>", "/we(ird)/<str:x>"),
        ("<n>/v1.0/what?", "/<n>/v1.0/what?"),
        ("^things/(?P<pk>[^/.]+)/$", "/things/{pk}/"),
        ("drf/things/$", "/drf/things/"),
        (r"drf/things\.(?P<format>[a-z0-9]+)/?$", "/drf/things.{format}/"),
        (r"shops/<slug:shop>/^old/(?P<chat_id>[a-z]+)/\Z", "/shops/<slug:shop>/old/{chat_id}/"),
        (r"^b/(\d+)/(?:page-(?P<p>\d+)/)?$", "/b/{var}/page-{p}/"),
        (r"^(?P<l>en|de)/c/\Z", "/{l}/c/"),
        (r"^(?:en|de)/c$", "/(en|de)/c"),
        (r"\A(?i)articles/(?P<year>[0-9]{4})-(?P<month>[0-9]{2})/", "/articles/{year}-{month}/"),
        (r"^(?P<path>(?:[^/]+/)*(?P<name>[^/]*))$", "/{path}"),
        (r"^a(?:b(?:c/(?P<x>\w+))?)?/$", "/abc/{x}/"),
        (r"^(?P<x>[()\]]+)/(?P<y>\(\))/z$", "/{x}/{y}/z"),
        (r"^item-\d+/[a-z]{2,3}/.*$", "/item-{var}/{var}/{var}"),
        (r"^(?!admin)(?P<slug>[\w-]+?)/(?=x)x$", "/{slug}/x"),
        (r"^(?P<a>\w)(?P=a)/$", "/{a}{a}/"),
        (r"en-us/^//x\-y/$", "/en-us/x-y/"),
        (r"^a/$|^b/$", "/(a/|b/)"),
        (r"^files/(?P<p>.*)\.json$", "/files/{p}.json"),
    ],
)
def test_an_expression_is_a_readable_template(route: str, name: str) -> None:
    """Groups become parameters, anchors and quantifiers are removed, converters stay."""
    assert readable(route) == name


@given(st.text("()[]\\|?*+{}^$<>:P=!/a1", max_size=40))
def test_no_expression_fails(route: str) -> None:
    """Nor does an invalid one; the name has a slash in front, and none twice."""
    name = readable(route)

    assert name.startswith("/")
    assert "//" not in name
