"""Descriptions of wrong options: the option, the value given and the values allowed."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from typing import Any

ENV_PREFIX = "MLFLOW_MIDDLEWARE_"


def unknown_options(given: Collection[str], known: Collection[str]) -> Iterator[str]:
    """Describe unknown options among those given and those in the environment."""
    yield from (unknown_option(name, known) for name in given if name not in known)
    in_environment = (name[len(ENV_PREFIX) :].lower() for name in os.environ if name.upper().startswith(ENV_PREFIX))
    yield from (unknown_option(name, known) + _from_environment(name) for name in in_environment if name not in known)


def ill_typed(detail: Mapping[str, Any], given: Mapping[str, object]) -> str:
    """Describe a value that its option does not accept.

    Args:
        detail: An error of pydantic.
        given: The options that do not come from the environment.
    """
    name, *inside = (str(part) for part in detail["loc"]) if detail["loc"] else ("settings",)
    place = f"{name}[{', '.join(inside)}]" if inside else name
    source = "" if name in given else _from_environment(name)
    problem = str(detail["ctx"]["error"]) if detail["type"] == "value_error" else detail["msg"]
    is_quoted = problem.startswith("'")  # it quotes the wrong part of the value itself
    is_hidden = "hmac" in name or "secret" in name
    value = "" if is_quoted or is_hidden or name == "routes" else f", not {shortened(detail.get('input'))}"
    return f"option {place!r}{source}: {problem[:1].lower()}{problem[1:]}{value}"


def shortened(value: object) -> str:
    """Return a value's ``repr()`` in at most 100 characters."""
    text = repr(value)
    return text if len(text) <= 100 else text[:97] + "..."


def unknown_option(name: str, known: Collection[str]) -> str:
    """Describe an option that does not exist."""
    import difflib  # takes milliseconds, needed only for a mistake

    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else "options: " + ", ".join(known)
    return f"unknown option {name!r} ({hint})"


def _from_environment(name: str) -> str:
    return f" (from {ENV_PREFIX}{name.upper()})"
