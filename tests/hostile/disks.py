"""Hostile disks: files that a spool directory may contain besides the spool's own."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

NAME = "00000000000000000001-1-000000.experiment-0.otlp"
"""A name like those of the spool's files; of all pending files, this is read first."""

UNFINISHED = f".{NAME}".replace("-1-", "-999999999-")
"""The name of a file of a process that died while writing it."""

OTHERS = (".env", "db.sqlite3", "manage.py", "data.otlp", ".hidden.otlp", "1-1-1.experiment-0.otlp", "20261127.log")
"""Names of a user's own files."""


def _linked(path: Path) -> None:
    target = path.parent.parent / f"target-of-{path.name}"
    target.write_bytes(b"precious")
    path.symlink_to(target)


def _of_another(path: Path) -> None:
    path.write_bytes(b"")
    os.chown(path, 12345, 12345)


def _writable(path: Path) -> None:
    path.write_bytes(b"")
    path.chmod(0o666)


def _dangling(path: Path) -> None:
    path.symlink_to(path.parent / "nothing")


PLACED: dict[str, Callable[[Path], object]] = {
    "a-pipe": os.mkfifo,
    "a-link": _linked,
    "a-dangling-link": _dangling,
    "a-directory": Path.mkdir,
    "of-another-user": _of_another,
    "writable-by-anybody": _writable,
}
"""Ways to replace a file of the spool, by kind; none of these may be read, moved or removed."""
