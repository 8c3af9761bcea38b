"""The queue of finished traces: when a batch is due, how much room is left, and when a flush is over."""

from __future__ import annotations

import threading

from mlflow_middleware.delivery.queue import LINGER, MAX_BATCH, TraceQueue
from tests.unit.delivery.fakes import SIZE, Clock, finished


def test_a_trace_waits_for_others_to_share_its_request() -> None:
    """It is taken once it has lingered."""
    clock = Clock()
    queue = TraceQueue(10 * SIZE, clock)
    queue.put(finished("a"))

    assert not queue.wait(0, 0)
    clock.now += LINGER
    queue.put(finished("b"))
    assert queue.wait(0, 0)
    assert [trace.trace_id for trace in queue.take()] == ["a", "b"]
    assert not queue.wait(0, 0)


def test_a_full_batch_does_not_wait() -> None:
    """It is due at once."""
    queue = TraceQueue(MAX_BATCH * SIZE, Clock())
    for _ in range(MAX_BATCH):
        queue.put(finished())

    assert queue.wait(0, 0)


def test_a_trace_takes_room_until_its_end() -> None:
    """Also after it was taken; a change of its size counts."""
    queue = TraceQueue(2 * SIZE, Clock())

    assert [queue.put(finished()) for _ in range(3)] == [True, True, False]
    queue.take()
    assert not queue.put(finished())
    queue.resize(-SIZE)
    assert queue.put(finished())
    queue.end(0)
    assert (queue.bytes, queue.pending) == (2 * SIZE, 2)


def test_a_flush_waits_for_earlier_traces() -> None:
    """It waits for no others."""
    queue = TraceQueue(10 * SIZE, Clock())
    assert queue.flush(0)
    queue.put(finished())
    assert not queue.flush(0)
    queue.end(SIZE)
    assert queue.flush(0)


def test_a_flush_takes_traces_that_have_not_lingered() -> None:
    """It wakes the sender, and ends with the last of them."""
    queue = TraceQueue(10 * SIZE, Clock())
    queue.put(finished())
    flushed: list[bool] = []
    flush = threading.Thread(target=lambda: flushed.append(queue.flush(60)))
    flush.start()

    assert queue.wait(None, 0)
    assert queue.is_flushing
    queue.take()
    queue.end(SIZE)
    flush.join(60)
    assert flushed == [True]
    assert not queue.is_flushing


def test_a_flush_ends_a_wait_once() -> None:
    """A sender that knows about it waits again."""
    queue = TraceQueue(10 * SIZE, Clock())
    queue.put(finished())
    queue.flush(0)

    assert not queue.wait(None, 0)
    assert queue.flushes == 1
    assert not queue.wait(0, queue.flushes)


def test_a_put_waits_for_no_other_thread() -> None:
    """Not even for a thread that no longer runs, as in a forked child."""
    queue = TraceQueue(10 * SIZE, Clock())
    entered, done = threading.Event(), threading.Event()

    def enter() -> None:
        with queue._lock:
            entered.set()
            done.wait(60)

    thread = threading.Thread(target=enter)
    thread.start()
    entered.wait(60)
    put = threading.Thread(target=lambda: queue.put(finished("a")), daemon=True)
    put.start()
    put.join(10)
    try:
        assert not put.is_alive()
    finally:
        done.set()
        thread.join()
    assert [trace.trace_id for trace in queue.take()] == ["a"]


def test_puts_wake_an_idle_sender() -> None:
    """Whichever of many threads is first; none is lost, and each is counted once."""
    queue = TraceQueue(10_000 * SIZE)
    taken: list[str] = []

    def send() -> None:
        while len(taken) < 1000:
            queue.wait(None, 0)
            for trace in queue.take():
                taken.append(trace.trace_id)
                queue.end(trace.size)

    def fill(number: int) -> None:
        for index in range(125):
            assert queue.put(finished(f"{number}-{index}"))

    sender = threading.Thread(target=send)
    sender.start()
    threads = [threading.Thread(target=fill, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in [*threads, sender]:
        thread.join(60)
    assert len(set(taken)) == len(taken) == 1000
    assert (queue.bytes, queue.pending) == (0, 0)


def test_a_sender_that_is_not_running_is_noticed() -> None:
    """Traces are due and not taken; a busy sender is another matter."""
    clock = Clock()
    queue = TraceQueue(10 * SIZE, clock)
    queue.put(finished())
    clock.now += LINGER + 5
    assert queue.left_alone == 5

    busy = TraceQueue(10 * SIZE, clock)
    busy.wait(0, 0)
    busy.put(finished())
    clock.now += LINGER + 5
    assert busy.left_alone == 0
    assert busy.wait(0, 0)
    assert busy.left_alone == 0
