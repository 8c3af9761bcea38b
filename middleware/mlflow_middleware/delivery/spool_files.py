"""Files of a directory that others may write to, too: written whole, and opened with nothing taken on trust."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Collection
from pathlib import Path

try:
    import fcntl
except (
    ImportError
):  # Windows has no flock: a shared directory may send a file twice there, which the server stores once
    fcntl = None  # type: ignore[assignment]

HAS_LOCKS = fcntl is not None

_SAFELY = os.O_RDWR | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


class NotOurs(Exception):
    """Why something with the name of a file of the spool is left alone."""


def write_whole(unfinished: Path, final: Path, data: bytes) -> None:
    """Write a file so that nobody ever sees a part of it under its final name."""
    try:
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "wb") as file:
            file.write(data)
        unfinished.rename(final)
    except OSError:
        with contextlib.suppress(OSError):
            unfinished.unlink()
        raise


def opened(path: Path, owners: Collection[int]) -> int:
    """An open descriptor of a file of the spool. To open it never waits, whatever it turns out to be.

    Args:
        path: The file.
        owners: Whose files are taken.

    Raises:
        OSError: It cannot be opened.
        NotOurs: It is nothing that the spool has written.
    """
    _check(os.lstat(path), owners)  # to open a device may do something, too
    descriptor = os.open(path, _SAFELY | getattr(os, "O_BINARY", 0))
    try:
        _check(os.fstat(descriptor), owners)
    except NotOurs:
        os.close(descriptor)
        raise
    return descriptor


def _check(found: os.stat_result, owners: Collection[int]) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise NotOurs("it is not a regular file")
    if found.st_uid not in owners:
        raise NotOurs(f"it belongs to another user ({found.st_uid})")
    if os.name == "posix" and found.st_mode & stat.S_IWOTH:  # not of the group: Kubernetes lets that write (fsGroup)
        raise NotOurs("anybody can write to it")


def user() -> int:
    return os.geteuid() if hasattr(os, "geteuid") else 0


def is_ours(path: Path, owners: Collection[int]) -> bool:
    """Whether it is a regular file that one of these has written."""
    try:
        _check(os.lstat(path), owners)
    except (OSError, NotOurs):
        return False
    return True


def is_locked(path: Path, descriptor: int) -> bool:
    """Lock an open file, unless somebody else has it, or it is not there any more."""
    if fcntl is None:
        return True  # type: ignore[unreachable]
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.fstat(descriptor).st_ino == os.lstat(path).st_ino
    except OSError:
        return False


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
