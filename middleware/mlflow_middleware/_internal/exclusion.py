"""Which requests are not traced: the option ``exclude``."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable, Mapping

DEFAULT = ("preflight", "/health", "/healthz", "/livez", "/readyz", "/metrics", "/favicon.ico")
"""What ``default`` stands for."""

_OF_METHOD = re.compile(r"([A-Za-z-]+) +([/*?\[].*)", re.DOTALL)
_PATH = re.compile(r"[/*?\[]")


def compiled_globs(globs: Iterable[str]) -> re.Pattern[str] | None:
    """Compile path globs into one pattern; None if there are none."""
    patterns = "|".join(map(fnmatch.translate, globs))
    return re.compile(patterns) if patterns else None


def _is_preflight(path: str, headers: Mapping[str, str]) -> bool:
    """https://fetch.spec.whatwg.org/#cors-preflight-request"""
    return "origin" in headers and "access-control-request-method" in headers


Rule = Callable[[str, Mapping[str, str]], bool]
"""Decides by path and headers."""

NAMED: dict[str, tuple[str, Rule]] = {"preflight": ("OPTIONS", _is_preflight)}
"""Kinds of requests that have a name: their method, and what else decides."""


def check(entries: tuple[str, ...]) -> tuple[str, ...]:
    """Return the entries, each a path glob, a method and a path glob, or a name.

    Raises:
        ValueError: One is none of these, and would exclude nothing.
    """
    for entry in entries:
        if entry != "default" and entry not in NAMED and not _PATH.match(entry) and not _OF_METHOD.fullmatch(entry):
            names = " or ".join(map(repr, ("default", *NAMED)))
            raise ValueError(
                f"{entry!r} is neither a path as /health or /docs*, nor one with a method as OPTIONS *, nor {names}"
            )
    return entries


def paths(entries: Iterable[str]) -> re.Pattern[str] | None:
    """Compile the globs for all methods; None if there are none."""
    return compiled_globs(entry for entry in _all(entries) if _PATH.match(entry))


def rules(entries: Iterable[str]) -> dict[str, list[Rule]]:
    """Return what is decided for single methods only."""
    found: dict[str, list[Rule]] = {}
    for entry in _all(entries):
        if match := _OF_METHOD.fullmatch(entry):
            found.setdefault(match[1].upper(), []).append(_glob_rule(match[2]))
        elif entry in NAMED:
            method, rule = NAMED[entry]
            found.setdefault(method, []).append(rule)
    return found


def _all(entries: Iterable[str]) -> list[str]:
    return [part for entry in entries for part in (DEFAULT if entry == "default" else (entry,))]


def _glob_rule(glob: str) -> Rule:
    matches = re.compile(fnmatch.translate(glob)).fullmatch
    return lambda path, headers: matches(path) is not None
