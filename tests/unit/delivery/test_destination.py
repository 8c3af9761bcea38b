"""One server as a state machine: batches, refusals, pauses, suspicion, the spool and the exit, by a fake clock."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import chain
from pathlib import Path

import pytest

from mlflow_middleware.delivery.actions import SendInfos, SendSpans
from mlflow_middleware.delivery.backoff import MAX_BACKOFF, MAX_RETRY_AFTER, MIN_BACKOFF
from mlflow_middleware.delivery.batch import PATIENCE
from mlflow_middleware.delivery.destination import MAX_BATCH_BYTES, MAX_SENT, MAX_SENT_AT_ONCE, SPOOL_EVERY
from mlflow_middleware.delivery.encoded import EncodedTrace
from mlflow_middleware.delivery.health import STUCK
from mlflow_middleware.delivery.queue import TraceQueue
from mlflow_middleware.delivery.replies import Outcome, PermanentError, RetryableError, TooLarge
from mlflow_middleware.delivery.sender import Sender
from mlflow_middleware.delivery.stats import Stats
from tests.unit.delivery.fakes import SIZE, Driven, away, finished, spool_in

REFUSED = PermanentError("not acceptable")


def ids(count: int) -> list[str]:
    return [f"tr-{number}" for number in range(count)]


def sizes(requests: list[list[str]]) -> list[int]:
    return [len(traces) for traces in requests]


@pytest.fixture
def driven() -> Driven:
    """A destination without a spool, whose experiment is known."""
    found = Driven()
    found.destination.experiments.of_environment = "7"
    return found


@pytest.fixture
def spooling(tmp_path: Path) -> Driven:
    """A destination with a spool."""
    found = Driven(spool_in(tmp_path / "spool"))
    found.destination.experiments.of_environment = "7"
    return found


# --- infos that are too large ---


def test_an_info_that_is_too_large_is_cut_and_sent_again(driven: Driven, caplog: pytest.LogCaptureFixture) -> None:
    """A proxy may allow less than many tags need; an info without anything to cut is refused."""
    large = json.dumps({"trace": {"trace_info": {"tags": {"a": "t" * 4000}}}}).encode()
    driven.add("tr-0", info=large)
    driven.add("tr-1")
    whole = {"tr-0"}

    def answer(trace_id: str) -> Outcome:
        if trace_id == "tr-1":
            return TooLarge("413")
        return TooLarge("413") if whole and whole.pop() else None

    driven.server.infos = answer
    driven.work()

    assert (driven.stats.delivered, sum(driven.stats.dropped.values())) == (1, 1)
    assert "without its largest" in caplog.text


# --- batches ---


def test_batches_grow_while_all_goes_well(driven: Driven) -> None:
    """From one trace, which finds the path, to `MAX_SENT`; infos before spans."""
    driven.add(*ids(200))
    driven.work()

    assert sizes(driven.server.requests("spans")) == [1, 2, 4, 8, 16, 32, MAX_SENT, MAX_SENT, 9]
    assert [kind for kind, _ in driven.server.asked] == ["infos", "spans"] * 9
    assert driven.stats == Stats(delivered=200)
    assert (driven.queue.pending, driven.queue.bytes) == (0, 0)
    assert driven.destination.due() is None


def test_a_batch_is_bounded_in_bytes(driven: Driven) -> None:
    """It has at least one trace."""
    driven.add(*ids(6), info=b" " * (MAX_BATCH_BYTES // 2 + 1))
    driven.work()

    assert sizes(driven.server.requests("spans")) == [1] * 6


def test_a_batch_is_of_one_experiment(driven: Driven) -> None:
    """Another experiment's traces wait for the next one."""
    driven.add("first")
    driven.add("a", experiment_id="1")
    driven.add("c", experiment_id="2")
    driven.add("b", experiment_id="1")
    driven.work()

    assert driven.server.requests("spans") == [["first"], ["a", "b"], ["c"]]
    assert driven.server.experiments == {"7", "1", "2"}


def test_infos_without_an_answer_are_sent_again(driven: Driven) -> None:
    """The connection may end early; the spans follow when all have an info."""
    driven.add(*ids(7))
    driven.server.stops_after = 3
    driven.work()

    assert sizes(driven.server.requests("infos")) == [1, 2, 4, 1]
    assert sizes(driven.server.requests("spans")) == [1, 2, 4]
    assert driven.stats == Stats(delivered=7)


def test_a_server_that_rejects_separate_spans_gets_them_with_the_infos(driven: Driven) -> None:
    """As soon as it has rejected them once."""

    def refuse(trace_ids: list[str]) -> None:
        driven.server.sends_spans_apart = False

    driven.server.spans = refuse
    driven.add(*ids(3))
    driven.work()

    assert sizes(driven.server.requests("spans")) == [1]
    assert driven.server.requests("infos") == [["tr-0"], ["tr-0"], ["tr-1", "tr-2"]]
    assert driven.stats == Stats(delivered=3)


# --- refusals ---


def test_a_poisonous_trace_is_isolated_and_refused(driven: Driven, caplog: pytest.LogCaptureFixture) -> None:
    """The batch is halved until it is found; its info is deleted, and the others are stored."""
    driven.server.spans = lambda trace_ids: REFUSED if "tr-9" in trace_ids else None
    driven.add(*ids(15))
    driven.work()

    assert driven.server.requests("spans")[3:] == [
        ids(15)[7:15],
        ids(15)[7:11],
        ids(15)[7:9],
        ids(15)[9:11],
        ["tr-9"],
        ["tr-10"],
        ids(15)[11:15],
    ]
    assert driven.server.requests("delete") == [["tr-9"]]
    assert driven.stats == Stats(delivered=14, dropped={"refused by the server": 1})
    assert driven.queue.pending == 0
    assert "trace dropped, refused by the server: tr-9: not acceptable" in caplog.text


def test_the_info_of_a_refused_supplement_stays(driven: Driven) -> None:
    """Its trace was delivered before, and is not counted again."""
    driven.server.spans = lambda trace_ids: REFUSED
    driven.add("tr-0", supplement=True)
    driven.work()

    assert driven.server.requests("delete") == []
    assert driven.stats == Stats()
    assert driven.queue.pending == 0


def test_a_refused_info_costs_only_its_trace(driven: Driven) -> None:
    """Its spans are not sent."""
    driven.server.infos = lambda trace_id: REFUSED if trace_id == "tr-2" else None
    driven.add(*ids(7))
    driven.work()

    assert driven.server.requests("spans") == [["tr-0"], ["tr-1"], ["tr-3", "tr-4", "tr-5", "tr-6"]]
    assert driven.stats == Stats(delivered=6, dropped={"refused by the server": 1})


# --- pauses ---


def test_pauses_double_within_bounds(driven: Driven, caplog: pytest.LogCaptureFixture) -> None:
    """Plus or minus a quarter; the failure is logged once, and so is its end."""
    driven.server.infos = lambda trace_id: RetryableError("away")
    driven.add("tr-0")
    driven.work()
    for failures in range(1, 12):
        expected = min(MAX_BACKOFF, MIN_BACKOFF * 2 ** (failures - 1))
        assert driven.plan() is None
        assert 0.75 * expected <= driven.wait() <= 1.25 * expected

    driven.server.infos = lambda trace_id: None
    driven.wait()
    assert driven.stats == Stats(delivered=1)
    assert caplog.messages == [
        "traces are waiting, with retries at most 30 s apart: away",
        "traces are sent again: http://tracking",
    ]


def test_the_same_failure_is_logged_again_after_a_recovery(driven: Driven, caplog: pytest.LogCaptureFixture) -> None:
    """It starts with a short pause."""
    driven.add("tr-0", "tr-1")
    failures = iter([RetryableError("away"), None, RetryableError("away")])
    driven.server.infos = lambda trace_id: next(failures, None)
    driven.work()
    driven.wait()
    assert driven.wait() <= 1.25 * MIN_BACKOFF

    assert [message.split(":")[0] for message in caplog.messages] == [
        "traces are waiting, with retries at most 30 s apart",
        "traces are sent again",
    ] * 2


def test_no_two_pauses_are_the_same(driven: Driven) -> None:
    """Workers that lost their server at the same time do not return at the same time."""
    driven.server.infos = lambda trace_id: RetryableError("away")
    driven.add("tr-0")
    driven.work()
    for _ in range(8):
        driven.wait()

    assert len({driven.wait() for _ in range(5)}) > 1


@pytest.mark.parametrize(("asked", "waits"), [(120.0, 120.0), (1e6, MAX_RETRY_AFTER)])
def test_retry_after_is_honoured(driven: Driven, asked: float, waits: float) -> None:
    """Within bounds."""
    driven.server.infos = lambda trace_id: RetryableError("busy", asked)
    driven.add("tr-0")
    driven.work()

    assert driven.wait() == pytest.approx(waits)


def test_a_flush_ends_a_pause_once(driven: Driven) -> None:
    """After one more attempt, the pause resumes."""
    driven.server.infos = lambda trace_id: RetryableError("busy", 120.0)
    driven.add("tr-0")
    driven.work()
    assert driven.plan() is None

    driven.destination.wake()
    driven.work()
    assert len(driven.server.asked) == 2
    assert driven.plan() is None


def test_pauses_are_short_during_a_flush(driven: Driven, monkeypatch: pytest.MonkeyPatch) -> None:
    """After any number of failures."""
    monkeypatch.setattr(driven.queue, "_flushing", 1)
    driven.server.infos = lambda trace_id: RetryableError("away")
    driven.add("tr-0")
    driven.work()

    assert max(driven.wait() for _ in range(10)) <= 1.25 * MIN_BACKOFF


def test_spans_that_failed_are_sent_in_half_the_number(driven: Driven) -> None:
    """The infos are stored already; then the batches grow again."""
    driven.add(*ids(7))
    driven.work()
    failures = iter([RetryableError("too slow")])
    driven.server.spans = lambda trace_ids: next(failures, None)
    driven.add(*ids(8))
    driven.work()
    driven.wait()

    assert sizes(driven.server.requests("spans")) == [1, 2, 4, 8, 4, 4]
    assert sizes(driven.server.requests("infos")) == [1, 2, 4, 8]
    assert driven.stats == Stats(delivered=15)


def test_infos_that_failed_are_sent_one_by_one(driven: Driven) -> None:
    """Infos that were stored are not sent again."""
    driven.add(*ids(7))
    driven.work()
    failures = iter([None, RetryableError("busy")])
    driven.server.infos = lambda trace_id: next(failures, None)
    driven.add(*"abcd")
    driven.work()
    driven.wait()

    assert driven.server.requests("infos")[3:] == [["a", "b", "c", "d"], ["b"]]
    assert driven.server.requests("spans")[3:] == [["a"], ["b", "c"], ["d"]]
    assert driven.stats == Stats(delivered=11)


def test_undelivered_traces_are_compressed(driven: Driven) -> None:
    """They count with their compressed size, and are sent unchanged."""
    info = b'{"a": "' + b"a" * SIZE + b'"}'
    driven.server.infos = lambda trace_id: RetryableError("away")
    driven.add("tr-0", info=info)
    driven.work()
    (trace,) = driven.destination.pending
    assert len(trace.info) < SIZE / 10
    assert driven.queue.bytes == trace.size

    driven.server.infos = lambda trace_id: None
    driven.wait()
    assert trace.info == info
    assert driven.queue.bytes == 0


def test_an_unexpected_error_is_a_failure_like_others(driven: Driven) -> None:
    """The batch is sent again after a pause."""
    driven.add("tr-0")
    assert driven.plan() is not None
    driven.destination.failed(ZeroDivisionError(), driven.clock.now)

    assert driven.plan() is None
    assert driven.destination.health.server.problem == "sending failed (ZeroDivisionError)"
    driven.wait()
    assert driven.stats == Stats(delivered=1)


# --- suspicion ---


def fails_over(driven: Driven, poison: str) -> None:
    """Make the server fail over one trace, in any batch."""
    ill = RetryableError("internal error", ill=True)
    driven.server.spans = lambda trace_ids: ill if poison in trace_ids else None


def test_a_trace_that_the_server_fails_over_is_refused_in_the_end(driven: Driven) -> None:
    """While others pass, after `PATIENCE` failures alone."""
    fails_over(driven, "tr-1")
    driven.add(*ids(10))
    driven.work()
    while driven.pending() != ["tr-1"]:
        driven.wait()
    assert driven.stats == Stats(delivered=9)
    while driven.pending():
        driven.wait()

    assert driven.server.requests("spans").count(["tr-1"]) >= PATIENCE
    assert driven.stats == Stats(delivered=9, dropped={"refused by the server": 1})


def test_a_trace_is_not_refused_if_nothing_passes(driven: Driven) -> None:
    """Then the server itself may be failing."""
    fails_over(driven, "tr-0")
    driven.add("tr-0")
    driven.work()
    for _ in range(3 * PATIENCE):
        driven.wait()
    assert driven.pending() == ["tr-0"]

    driven.server.spans = lambda trace_ids: None
    driven.wait()
    assert driven.stats == Stats(delivered=1)


def test_a_suspect_stays_in_memory(spooling: Driven) -> None:
    """Its failures are counted there; the others are spooled, and come back."""
    fails_over(spooling, "tr-0")
    spooling.add(*ids(3))
    spooling.work()
    assert spooling.pending() == ["tr-0"]
    assert spooling.stats == Stats(spooled=2)

    while spooling.pending():
        spooling.wait()
    assert spooling.stats == Stats(delivered=2, dropped={"refused by the server": 1})


# --- the spool ---


def test_undelivered_traces_are_spooled_and_sent_later(spooling: Driven) -> None:
    """When the server is back."""
    spooling.server.infos = lambda trace_id: RetryableError("away")
    spooling.add(*ids(5))
    spooling.work()
    assert spooling.pending() == []
    assert spooling.stats == Stats(spooled=5)
    assert (spooling.queue.pending, spooling.queue.bytes) == (0, 0)

    spooling.server.infos = lambda trace_id: None
    for _ in range(3):
        spooling.wait()
    assert sorted(chain.from_iterable(spooling.server.requests("spans"))) == ids(5)
    assert spooling.stats == Stats(delivered=5)
    assert spooling.spool is not None
    assert list(spooling.spool.files()) == []


def test_a_trickle_during_an_outage_is_spooled_every_second(spooling: Driven) -> None:
    """Not each trace in a file of its own; and without a call to the server."""
    spooling.server.infos = lambda trace_id: RetryableError("busy", 120.0)
    spooling.add("first")
    spooling.work()
    spooling.add("second")
    assert spooling.plan() is None
    spooling.add("third")
    assert spooling.plan() is None
    assert spooling.stats == Stats(spooled=2)
    assert spooling.pending() == ["third"]

    spooling.clock.now += SPOOL_EVERY
    assert spooling.plan() is None
    assert spooling.stats == Stats(spooled=3)
    assert len(spooling.server.asked) == 1


def test_traces_wait_in_memory_if_the_spool_is_unusable(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """This is logged, and they are sent when the server is back."""
    (tmp_path / "spool").write_text("a file")
    driven = Driven(spool_in(tmp_path / "spool"))
    driven.server.infos = lambda trace_id: RetryableError("away")
    driven.add("tr-0", experiment_id="1")
    driven.work()
    assert driven.pending() == ["tr-0"]
    assert sum("traces wait in memory instead of the spool" in message for message in caplog.messages) == 1

    driven.server.infos = lambda trace_id: None
    driven.clock.now += MAX_BACKOFF
    driven.work()
    assert driven.stats == Stats(delivered=1)


def test_pending_traces_are_spooled_while_a_call_hangs(spooling: Driven, caplog: pytest.LogCaptureFixture) -> None:
    """Again every second; traces of a call that returns in time are not spooled."""
    spooling.add(*ids(3))
    action = spooling.plan()
    assert action
    assert not spooling.destination.look(spooling.clock.now)
    spooling.clock.now += STUCK
    assert spooling.destination.look(spooling.clock.now)
    spooling.destination.rescue(spooling.clock.now)
    assert spooling.stats == Stats(spooled=3)
    assert caplog.messages == ["traces go to spool_dir until the server answers again: http://tracking"]

    spooling.add("tr-3")
    assert not spooling.destination.look(spooling.clock.now)
    spooling.clock.now += SPOOL_EVERY
    assert spooling.destination.look(spooling.clock.now)
    spooling.perform(action)
    assert not spooling.destination.look(spooling.clock.now)
    assert spooling.pending() == ["tr-3"]
    assert len(caplog.messages) == 1


def test_a_file_may_take_its_time_to_load(tmp_path: Path) -> None:
    """Nothing waits for it: traces in memory are sent meanwhile, and the server does not count as failing."""
    spool = spool_in(tmp_path / "spool")
    spool_in(tmp_path / "spool").write([EncodedTrace("tr-0", "1", b"", b"{}")])
    jobs: list[Callable[[], object]] = []
    driven = Driven(spool, run=jobs.append)
    driven.destination.experiments.of_environment = "7"
    driven.add("tr-1")
    driven.work()
    assert driven.stats == Stats(delivered=1)
    for _ in range(20):
        driven.wait()
    assert len(jobs) == 1

    jobs.pop()()
    driven.work()
    assert driven.stats == Stats(delivered=2)
    while jobs:
        jobs.pop(0)()
    assert list(spool.files()) == []


def test_a_trace_delivered_while_it_is_spooled_is_not_sent_again(tmp_path: Path) -> None:
    """Its file is removed when it is read next."""
    jobs: list[Callable[[], object]] = []
    driven = Driven(spool_in(tmp_path / "spool"), run=jobs.append)
    driven.destination.experiments.of_environment = "7"
    driven.server.infos = lambda trace_id: RetryableError("away")
    driven.add("tr-0")
    driven.work()
    (write,) = (job for job in jobs if "_write" in repr(job))
    jobs.clear()
    spool = driven.spool
    assert spool
    original = spool.write_encoded

    def meanwhile(data: bytes, experiment_id: str | None) -> str:
        driven.server.infos = lambda trace_id: None
        driven.clock.now += MAX_BACKOFF
        driven.work()
        return original(data, experiment_id)

    spool.write_encoded = meanwhile  # type: ignore[method-assign]
    write()

    assert driven.stats == Stats(delivered=1)
    assert spool.claim() is None
    assert list(spool.files()) == []


# --- the experiment ---


def test_the_experiment_is_looked_up_without_any_trace(caplog: pytest.LogCaptureFixture) -> None:
    """An error is logged at the start; once it is found, nothing is due."""
    driven = Driven(resolve=away)
    driven.work()
    pauses = [driven.wait() for _ in range(3)]
    assert pauses == sorted(pauses)
    assert caplog.messages == ["traces cannot be sent yet, with retries at most 30 s apart: the server is unreachable"]

    assert driven.destination.health.is_failing

    driven.resolve = lambda: "7"
    driven.wait()
    assert driven.destination.experiments.of_environment == "7"
    assert driven.destination.due() is None
    assert not driven.destination.health.is_failing


def test_traces_wait_for_the_experiment(caplog: pytest.LogCaptureFixture) -> None:
    """A failed look-up is a failure to send; a logged one is not logged again."""
    driven = Driven(resolve=away)
    driven.work()
    driven.add("tr-0")
    driven.work()
    assert driven.server.asked == []
    assert driven.destination.health.server.failures == 1
    assert len(caplog.messages) == 1

    driven.resolve = lambda: "7"
    driven.wait()
    assert driven.stats == Stats(delivered=1)
    assert driven.server.experiments == {"7"}
    assert not driven.destination.health.is_failing


def test_a_trace_with_its_own_experiment_does_not_wait_for_another() -> None:
    """The environment's experiment is looked up afterwards."""
    driven = Driven(resolve=away)
    driven.add("tr-0", experiment_id="3")
    driven.add("tr-1")
    driven.work()

    assert driven.server.requests("spans") == [["tr-0"]]
    assert driven.pending() == ["tr-1"]


# --- a deadline ---


@pytest.fixture
def hurried(driven: Driven) -> Driven:
    """A destination with a deadline."""
    driven.in_a_hurry = True
    driven.destination.health.hurry()
    return driven


def test_with_a_deadline_the_spans_of_all_precede_any_info(hurried: Driven) -> None:
    """In as few requests as possible, also the first time."""
    hurried.add(*ids(MAX_SENT_AT_ONCE + 10))
    hurried.work()

    assert sizes(hurried.server.requests("spans")) == [MAX_SENT_AT_ONCE, 10]
    assert [kind for kind, _ in hurried.server.asked][:3] == ["spans", "spans", "infos"]
    assert sorted(chain.from_iterable(hurried.server.requests("infos"))) == sorted(ids(MAX_SENT_AT_ONCE + 10))
    assert hurried.stats == Stats(delivered=MAX_SENT_AT_ONCE + 10)
    assert (hurried.queue.pending, hurried.queue.bytes) == (0, 0)


def test_a_deadline_in_the_middle_of_a_batch_reaches_every_trace(driven: Driven) -> None:
    """Stored infos are not sent again; the spans of all come next."""
    driven.add(*ids(3))
    driven.work()
    driven.add(*"abcd")
    action = driven.plan()
    assert isinstance(action, SendInfos)
    driven.destination.answered(action, None, driven.clock.now)
    assert driven.destination.owes_spans()
    driven.destination.done(driven.clock.now)
    driven.add("e")
    driven.in_a_hurry = True
    driven.work()

    assert driven.server.requests("spans")[-1] == ["a", "b", "c", "d", "e"]
    assert sorted(chain.from_iterable(driven.server.requests("infos")[2:])) == ["b", "c", "d", "e"]
    assert driven.stats == Stats(delivered=8)


def test_after_the_deadline_readable_traces_count_as_delivered(hurried: Driven) -> None:
    """The rest stays pending if the process may go on, and counts as lost otherwise."""
    hurried.server.infos = lambda trace_id: RetryableError("slow")
    hurried.add("tr-0", "tr-1")
    hurried.work()
    hurried.add("tr-2")
    hurried.destination.give_up(hurried.clock.now)
    hurried.ledger.settle(hurried.destination.pending, last=False)
    assert hurried.stats == Stats(delivered=2)
    assert hurried.pending() == ["tr-2"]

    hurried.ledger.settle(hurried.destination.pending, last=True)
    assert hurried.stats == Stats(delivered=2, dropped={"not delivered before the exit": 1})
    assert hurried.queue.pending == 0


def test_a_trace_without_its_info_goes_to_the_spool(spooling: Driven) -> None:
    """The process that reads it there completes the trace."""
    spooling.in_a_hurry = True
    spooling.server.infos = lambda trace_id: RetryableError("slow", 60.0)
    spooling.add("tr-0")
    spooling.work()
    assert spooling.stats == Stats(spooled=1)

    spooling.in_a_hurry = False
    spooling.server.infos = lambda trace_id: None
    spooling.destination.wake()
    spooling.work()
    assert spooling.server.requests("infos") == [["tr-0"], ["tr-0"]]
    assert spooling.stats == Stats(delivered=1)


def test_a_deadline_takes_nothing_from_the_spool(spooling: Driven) -> None:
    """Spooled traces are safe, and can wait."""
    spooling.server.infos = lambda trace_id: RetryableError("away")
    spooling.add("old")
    spooling.work()
    heir = Driven(spooling.spool, in_a_hurry=True)
    heir.add("new")
    heir.work()

    assert heir.server.requests("spans") == [["new"]]


def test_a_poisonous_trace_is_found_with_a_deadline_too(hurried: Driven) -> None:
    """It has no stored info that would have to be deleted."""
    hurried.server.spans = lambda trace_ids: REFUSED if "tr-9" in trace_ids else None
    hurried.add(*ids(15))
    hurried.work()

    assert hurried.server.requests("delete") == []
    assert hurried.stats == Stats(delivered=14, dropped={"refused by the server": 1})


def test_a_readable_trace_is_not_lost_with_its_info(hurried: Driven, caplog: pytest.LogCaptureFixture) -> None:
    """It is named in the log."""
    hurried.server.infos = lambda trace_id: REFUSED
    hurried.add("tr-0")
    hurried.work()

    assert hurried.stats == Stats(delivered=1)
    assert caplog.messages == [
        "trace stored without some of its metadata and tags, which the server refused: tr-0: not acceptable"
    ]


def test_a_server_that_rejects_separate_spans_is_served_as_usual(hurried: Driven) -> None:
    """By the infos, which carry the spans."""
    hurried.server.sends_spans_apart = False
    hurried.add(*ids(3))
    hurried.work()

    assert hurried.server.requests("spans") == []
    assert hurried.stats == Stats(delivered=3)


@pytest.mark.parametrize(
    ("problem", "hopeless"),
    [
        (RetryableError("nothing listens", needs_help=True), True),
        (RetryableError("busy"), False),
        (RetryableError("ill", ill=True), False),
    ],
)
def test_a_deadline_does_not_wait_for_an_unreachable_server(
    driven: Driven, problem: RetryableError, hopeless: bool
) -> None:
    """One that failed before is tried once more first; a busy one is waited for."""
    driven.server.infos = lambda trace_id: problem
    driven.server.spans = lambda trace_ids: problem
    driven.add("tr-0")
    driven.work()
    assert driven.destination.health.is_unreachable is hopeless

    driven.in_a_hurry = True
    driven.destination.health.hurry()
    assert not driven.destination.health.is_hopeless
    driven.destination.wake()
    driven.work()
    assert driven.destination.health.is_hopeless is hopeless


# --- the exit ---


@pytest.mark.parametrize("answer", [None, REFUSED, RetryableError("away"), RetryableError("broken", ill=True)])
@pytest.mark.parametrize("kind", [SendInfos, SendSpans])
def test_an_exit_in_the_middle_of_a_request_keeps_every_trace(
    spooling: Driven, kind: type[SendInfos] | type[SendSpans], answer: Outcome
) -> None:
    """All are spooled; an answer that comes later counts none of them again."""
    spooling.add(*ids(7))
    action = spooling.plan()
    while not (isinstance(action, kind) and len(action.traces) > 1):
        if action:
            spooling.perform(action)
        action = spooling.plan()
    spooling.destination.give_up(spooling.clock.now)
    assert spooling.stats == Stats(delivered=1, spooled=6)
    assert (spooling.pending(), spooling.queue.pending) == ([], 0)

    for _ in action.traces if kind is SendInfos else (1,):
        spooling.destination.answered(action, answer, spooling.clock.now)
    spooling.destination.done(spooling.clock.now)
    assert spooling.plan() is None
    assert spooling.stats == Stats(delivered=1, spooled=6)


def test_without_a_spool_an_exit_leaves_all_pending(driven: Driven) -> None:
    """The process may go on after a server's shutdown hook."""
    driven.add(*ids(3))
    action = driven.plan()
    assert action is not None
    driven.destination.give_up(driven.clock.now)
    assert driven.pending() == ids(3)

    driven.perform(action)
    driven.work()
    assert driven.stats == Stats(delivered=3)


def test_an_exit_spools_traces_before_the_destination(tmp_path: Path) -> None:
    """Those in the queue, and those that wait for late spans."""
    queue, stats, spool = TraceQueue(1_000_000), Stats(), spool_in(tmp_path / "spool")
    for trace_id in ids(3):
        assert queue.put(finished(trace_id, complete=trace_id != "tr-1"))
    Sender(queue, stats, spool).give_up()

    assert stats == Stats(spooled=3)
    assert (queue.pending, queue.bytes, spool.count()) == (0, 0, 3)
