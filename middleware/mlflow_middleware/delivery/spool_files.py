"""Safe access to files in a directory that others can write to, too: written atomically, and checked when opened."""

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
):  # no flock on Windows: processes that share a directory may send a file twice, which the server stores once
    fcntl = None  # type: ignore[assignment]

HAS_LOCKS = fcntl is not None

_SAFELY = os.O_RDWR | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


class NotOurs(Exception):
    """The reason why an entry with the name of a spool file is left alone."""


def write_whole(unfinished: Path, final: Path, data: bytes) -> None:
    """Write a file that is never visible under its final name before it is complete."""
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
    """Open a file of the spool and return its descriptor. This never blocks, whatever the file turns out to be.

    Args:
        path: The file.
        owners: The users whose files are accepted.

    Raises:
        OSError: The file cannot be opened.
        NotOurs: The spool has not written the file.
    """
    _check(os.lstat(path), owners)  # opening a device may have effects
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
    if os.name == "posix" and found.st_mode & stat.S_IWOTH:  # the group may write: Kubernetes allows it (fsGroup)
        raise NotOurs("anybody can write to it")


def user() -> int:
    return os.geteuid() if hasattr(os, "geteuid") else 0


def is_ours(path: Path, owners: Collection[int]) -> bool:
    """Return whether a path is a regular file that one of the owners has written."""
    try:
        _check(os.lstat(path), owners)
    except (OSError, NotOurs):
        return False
    return True


def is_locked(path: Path, descriptor: int) -> bool:
    """Lock an open file; return False if another process has locked it, or if it has been removed."""
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
