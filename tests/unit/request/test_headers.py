"""Response headers: ours are added, the app's own are kept, and browsers may read them."""

from __future__ import annotations

import pytest

from mlflow_middleware.request.headers import join

OURS = [("X-Request-ID", "r-1"), ("X-MLflow-Trace-ID", "tr-1")]
EXPOSE = "Access-Control-Expose-Headers"


def joined(headers: list[tuple[str, str]], *, cross_origin: bool = False) -> list[tuple[str, str]]:
    """Return a response's headers with ours."""
    result = list(headers)
    join(result, OURS, cross_origin=cross_origin)
    return result


def test_our_headers_come_after_the_apps() -> None:
    """None of the app's is changed or moved."""
    own = [("Content-Type", "text/plain"), ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")]

    assert joined(own) == own + OURS


@pytest.mark.parametrize("name", ["X-Request-ID", "x-request-id", "X-REQUEST-ID"])
def test_the_apps_own_header_wins(name: str) -> None:
    """In any case; ours with that name is left out."""
    assert joined([(name, "mine")]) == [(name, "mine"), ("X-MLflow-Trace-ID", "tr-1")]


def test_a_request_of_the_same_origin_exposes_nothing() -> None:
    """Without an ``Origin`` no CORS header appears, and one that the app sets is unchanged."""
    assert all(name != EXPOSE for name, _ in joined([]))
    assert joined([(EXPOSE, "X-Own")]) == [(EXPOSE, "X-Own"), *OURS]


def test_a_cross_origin_request_may_read_our_headers() -> None:
    """All our names are exposed, also if the app set the header itself."""
    exposed = (EXPOSE, "X-Request-ID, X-MLflow-Trace-ID")

    assert joined([], cross_origin=True) == [*OURS, exposed]
    assert joined([("x-request-id", "mine")], cross_origin=True) == [("x-request-id", "mine"), OURS[1], exposed]


@pytest.mark.parametrize(
    ("own", "becomes"),
    [
        ("X-Own", "X-Own, X-Request-ID, X-MLflow-Trace-ID"),
        ("X-Own,x-request-id", "X-Own,x-request-id, X-MLflow-Trace-ID"),
        ("x-mlflow-trace-id, X-REQUEST-ID", "x-mlflow-trace-id, X-REQUEST-ID"),
        ("*", "*"),
        ("X-Own, *", "X-Own, *"),
        ("", "X-Request-ID, X-MLflow-Trace-ID"),
    ],
)
@pytest.mark.parametrize("name", [EXPOSE, EXPOSE.lower()])
def test_the_apps_exposed_headers_are_extended(name: str, own: str, becomes: str) -> None:
    """By the missing names, without repeats and in place; ``*`` exposes everything already."""
    before, after = ("Content-Type", "text/plain"), ("Vary", "Origin")

    assert joined([before, (name, own), after], cross_origin=True) == [before, (name, becomes), after, *OURS]


def test_headers_exposed_in_several_lines_are_not_repeated() -> None:
    """An app may write the header more than once; each line counts."""
    own = [(EXPOSE, "X-Request-ID"), (EXPOSE, "X-Own")]

    assert joined(own, cross_origin=True) == [own[0], (EXPOSE, "X-Own, X-MLflow-Trace-ID"), *OURS]
    assert joined([(EXPOSE, "*"), (EXPOSE, "X-Own")], cross_origin=True)[:2] == [(EXPOSE, "*"), (EXPOSE, "X-Own")]


def test_without_our_headers_nothing_changes() -> None:
    """The response is the same, also cross-origin."""
    headers = [("Content-Type", "text/plain"), (EXPOSE, "X-Own")]

    join(headers, [], cross_origin=True)
    assert headers == [("Content-Type", "text/plain"), (EXPOSE, "X-Own")]
