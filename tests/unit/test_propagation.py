"""W3C baggage, written and read."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.baggage import get_all
from opentelemetry.baggage.propagation import W3CBaggagePropagator

from mlflow_middleware.propagation import MAX_BYTES, MAX_MEMBERS, baggage_header, baggage_of


@given(st.text(max_size=250))
def test_written_baggage_can_be_read(text: str) -> None:
    """By us and by OpenTelemetry, with any values; the header is plain ASCII without a space."""
    safe = text.encode("utf-8", "replace").decode()
    header = baggage_header({"session.id": safe, "user.id": "jane"})

    assert header.isascii()
    assert header.isprintable()
    assert " " not in header
    assert baggage_of(header) == {**({"session.id": safe} if safe else {}), "user.id": "jane"}
    theirs = get_all(W3CBaggagePropagator().extract({"baggage": header}))
    assert theirs.get("session.id", "") == safe.strip()


def test_opentelemetrys_baggage_is_read() -> None:
    """Except for its spaces, which it does not write as in the standard."""
    from opentelemetry.baggage import set_baggage

    carrier: dict[str, str] = {}
    W3CBaggagePropagator().inject(carrier, set_baggage("session.id", "a,b=c/ü", set_baggage("user.id", "jane")))

    assert baggage_of(carrier["baggage"]) == {"session.id": "a,b=c/ü", "user.id": "jane"}


def test_headers_are_bounded() -> None:
    """Values that do not fit are left out, and no more is read than must be passed on."""
    long = "\N{SNOWMAN}" * 1000

    assert baggage_header({"session.id": long, "user.id": "jane"}) == "user.id=jane"
    assert len(baggage_header({str(number): "x" * 200 for number in range(100)})) <= MAX_BYTES
    assert len(baggage_of(",".join(f"k{number}=v" for number in range(1000)))) == MAX_MEMBERS


def test_without_ids_there_is_no_header() -> None:
    """Nor for ids that are not known."""
    assert baggage_header({"session.id": None, "user.id": ""}) == ""
    assert baggage_of("") == {}
