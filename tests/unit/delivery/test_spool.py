"""The spool: its own files are read back whole, and nothing else in its directory is ever touched."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mlflow_middleware.delivery.encoded import EncodedTrace
from mlflow_middleware.delivery.spool import SET_ASIDE, Spool, SpoolProblem
from tests.hostile.disks import NAME, OTHERS, PLACED, UNFINISHED

ONLY_ROOT = {"of-another-user"}
"""Files that only root can create."""


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    """A spool in an existing directory."""
    directory = tmp_path / "spool"
    directory.mkdir()
    return Spool(directory, 1_000_000)


def put(spool: Spool, kind: str, name: str) -> os.stat_result:
    """Create something hostile there; return the system's description of it."""
    if kind in ONLY_ROOT and os.geteuid() != 0:
        pytest.skip("only root can do that")
    PLACED[kind](spool.directory / name)
    return os.lstat(spool.directory / name)


def trace(number: int) -> EncodedTrace:
    return EncodedTrace(f"tr-{number}", "0", b"", b"{}")


def claimed(spool: Spool) -> list[str]:
    """Return the trace ids of the next file."""
    file = spool.claim()
    assert file
    return [each.trace_id for each in file.traces]


def test_other_files_stay(spool: Spool) -> None:
    """A user may specify a directory that is not empty."""
    for name in OTHERS:
        (spool.directory / name).write_bytes(b"precious")

    spool.tidy()
    spool.write([trace(1)])
    assert claimed(spool) == ["tr-1"]
    assert spool.claim() is None

    assert {name: (spool.directory / name).read_bytes() for name in OTHERS} == dict.fromkeys(OTHERS, b"precious")
    assert not (spool.directory / SET_ASIDE).exists()


@pytest.mark.parametrize("kind", PLACED)
def test_other_things_with_the_name_of_our_file_stay(spool: Spool, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """They are neither waited for, read, moved nor removed, and reported once; the next file is sent."""
    before = put(spool, kind, NAME)
    spool.write([trace(1)])

    assert spool.count() == 1
    assert claimed(spool) == ["tr-1"]
    assert spool.claim() is None
    spool.tidy()

    after = os.lstat(spool.directory / NAME)
    assert (after.st_ino, after.st_mode, after.st_size) == (before.st_ino, before.st_mode, before.st_size)
    assert caplog.text.count(NAME) == 1


@pytest.mark.parametrize("kind", PLACED)
def test_other_things_with_the_name_of_an_unfinished_file_stay(spool: Spool, kind: str) -> None:
    """Only regular files are set aside."""
    put(spool, kind, UNFINISHED)

    spool.tidy()

    assert os.path.lexists(spool.directory / UNFINISHED)


def test_an_incomplete_file_is_set_aside(spool: Spool) -> None:
    """Its process has died meanwhile."""
    (spool.directory / UNFINISHED).write_bytes(b"half")

    spool.tidy()

    assert (spool.directory / SET_ASIDE / UNFINISHED).read_bytes() == b"half"


def test_nothing_is_set_aside_through_a_link(spool: Spool, tmp_path: Path) -> None:
    """The creator of the link would get it."""
    (tmp_path / "elsewhere").mkdir()
    (spool.directory / SET_ASIDE).symlink_to(tmp_path / "elsewhere")
    (spool.directory / NAME).write_bytes(b"damaged")

    assert spool.claim() is None

    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert (spool.directory / NAME).exists()


def test_a_file_that_is_larger_than_the_spool_is_not_read(spool: Spool) -> None:
    """It may be a sparse one of any size."""
    with (spool.directory / NAME).open("wb") as file:
        file.truncate(1 << 40)

    assert spool.claim() is None
    assert (spool.directory / SET_ASIDE / NAME).exists()


def test_only_our_files_count_against_the_bound(spool: Spool) -> None:
    """Other files take none of the spool's room."""
    (spool.directory / "db.sqlite3").write_bytes(b"x" * 2_000_000)
    spool.write([trace(1)])

    with (spool.directory / NAME).open("wb") as file:
        file.truncate(999_999)
    with pytest.raises(SpoolProblem, match=r"is full \(max_spool_bytes=1000000\)"):
        spool.write([trace(2)])
