"""Hostile bodies and requests, all the way from a request to its encoded trace.

    python -m tests.fuzz [--minutes M] [--only PATH[,PATH]]

Each body must raise nothing, stay within bounds of memory and CPU time, start no full garbage collection, and leave no
secret in the encoded trace. Headers, paths and queries must take a bounded number of calls on the event loop. If one
does not, the exit code is 1, and the smallest counterexample that hypothesis found is printed.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tests import generators
from tests.fuzz.way import Way
from tests.generators import Asked, Sample

ROUND = 100
"""Bodies of one path before the next path's turn."""

REPORT = 30.0
"""Seconds between two lines of progress."""

LARGE = 50_000
"""Bytes from which on a body is truncated at one more place only, as each takes long."""

LONGEST = 10_000
"""Characters to print of a body that failed."""

BODIES: dict[str, st.SearchStrategy[Sample]] = {
    "json": generators.json_bodies(),
    "text": generators.text_bodies(),
    "lines": generators.line_bodies(),
    "form": generators.form_bodies(),
    "multipart": generators.multipart_bodies(),
    "sse": generators.stream_bodies(),
    "corpus": generators.corpus_bodies(),
    "endless": generators.endless_bodies(),
}
PATHS = {
    **BODIES,
    "encodings": generators.encoded(st.one_of(*BODIES.values())),
}
REQUESTS = "requests"
"""The path of headers, paths and queries."""

cuts = st.lists(st.floats(0, 1), max_size=8)


A_ROUND = settings(
    max_examples=ROUND,
    deadline=None,
    database=None,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=list(HealthCheck),
    print_blob=False,
)
"""Hypothesis' settings for each round."""


def trial(path: str, way: Way, tried: Counter[str]) -> Callable[[], None]:
    """Run a round of one path: as many bodies as `ROUND`, different ones each time."""
    if path == REQUESTS:
        return trial_of_requests(way, tried)

    @seed(random.getrandbits(64))
    @A_ROUND
    @given(PATHS[path] | generators.mutated(PATHS[path]), cuts)
    def once(sample: Sample, shares: list[float]) -> None:
        most = 0 if path == "corpus" else 1 if len(sample.data) > LARGE else None  # a cut may remove a secret's name
        for limit in (sample.limit, *[round(len(sample.data) * share) for share in shares[:most]]):
            tried[path] += 1
            way.check(replace(sample, limit=limit))

    return once


def trial_of_requests(way: Way, tried: Counter[str]) -> Callable[[], None]:
    """Run a round of headers, paths and queries."""

    @seed(random.getrandbits(64))
    @A_ROUND
    @given(generators.requests())
    def once(asked: Asked) -> None:
        tried[REQUESTS] += 1
        way.check_request(asked)

    return once


def fuzz(paths: list[str], minutes: float) -> int:
    """Try bodies of all paths in turn; return the exit code."""
    for encoding in generators.ENCODERS:
        generators.BOMBS[encoding] = [generators.bomb(encoding)]
    print(f"content encodings: {', '.join(generators.ENCODERS)}", flush=True)
    way, tried = Way(), Counter[str]()
    began = reported = time.monotonic()
    while (now := time.monotonic()) < began + 60 * minutes:
        if now >= reported + REPORT:
            reported = now
            print(f"{now - began:5.0f} s: {counts(tried)}", flush=True)
        for path in paths:
            try:
                trial(path, way, tried)()
                way.check_growth()
            except Exception as error:
                print(f"FAILED on {path}, after {counts(tried)}")
                for each in getattr(error, "exceptions", [error]):  # several kinds come as a group
                    print("\n".join(text[:LONGEST] for text in [repr(each), *getattr(each, "__notes__", [])]))
                return 1
    worst = way.worst
    print(
        f"{sum(tried.values())} bodies, none failed: {counts(tried)}\n"
        f"at worst {worst.seconds:.2f} s of CPU, {worst.memory:.0f} x the limit in memory, {worst.sent:.1f} x sent\n"
        f"{worst.calls} calls for a request without a body\n"
        f"the slowest: {worst.slowest!r:.500}"
    )
    return 0


def counts(tried: Counter[str]) -> str:
    """Return the number of bodies tried for each path."""
    return ", ".join(f"{path} {count}" for path, count in tried.items())


def paths_of(text: str) -> list[str]:
    """Parse ``json,sse`` as these paths."""
    paths = text.split(",")
    if not {*PATHS, REQUESTS} >= set(paths):
        raise argparse.ArgumentTypeError(f"the paths are {', '.join([*PATHS, REQUESTS])}")
    return paths


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0, metavar="M")
    parser.add_argument("--only", type=paths_of, default=[*PATHS, REQUESTS], metavar="PATH[,PATH]")
    arguments = parser.parse_args()
    return fuzz(arguments.only, arguments.minutes)


if __name__ == "__main__":
    sys.exit(main())
