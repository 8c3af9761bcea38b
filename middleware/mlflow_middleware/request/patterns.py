"""Readable routes from the regular expressions that Django's ``re_path`` and the routers of its extensions have."""

from __future__ import annotations

import functools
import re

_IS_EXPRESSION = re.compile(r"\(\?|[\\^$\[|]|\.[*+]")
"""What only a regular expression has; a template of ``path()`` may have parentheses, too."""

_TOKEN = re.compile(
    r"""
      (?P<kept> <(?:[^<>():]+:)?[^\W\d]\w*> )                               # a converter of path()
    | (?P<dropped> [\^$] | \\[AZzbB] )
    | (?P<variable> \\[dDwWsS] | \[\^?\]?(?:\\.|[^\]\\])*\] | \.(?=[*+{?]) )
    | \\(?P<escaped> . )
    | (?P<opens> \( )
    | (?P<closes> \) )
    | (?P<alternative> \| )
    | (?P<literal> . )
    """,
    re.VERBOSE | re.DOTALL,
)

_QUANTIFIER = re.compile(r"(?:[*+?]|\{[0-9]*,?[0-9]*\})[?+]?")

_HEAD = re.compile(r"\?P[<=](?P<name>\w+)>?|(?P<aside>\?(?:<?[=!]|\#))|(?P<plain>\?(?:>|[aiLmsux-]*:?))|")
"""What stands between a group's parenthesis and its content."""

_VARIABLE = "{var}"


class _Group:
    """A group, or all of the expression, as far as it has been read."""

    def __init__(self, written: str | None = None) -> None:
        self._written = written  # what it is, whatever its content
        self.alternatives = [""]

    def __str__(self) -> str:
        if self._written is not None:
            return self._written
        text = "|".join(self.alternatives)
        return f"({text})" if len(self.alternatives) > 1 else text


@functools.lru_cache(maxsize=2048)
def readable(route: str) -> str:
    r"""Write a route of Django as a template: ``^things/(?P<pk>[^/.]+)/$`` is ``/things/{pk}/``.

    Converters stay as they are (``<int:n>``), a group without a name is ``{var}``, and what is optional is there.
    """
    if _IS_EXPRESSION.search(route):
        route = _simplified(route)
    return re.sub("/{2,}", "/", f"/{route}")


def _simplified(expression: str) -> str:
    groups = [_Group()]
    place = 0
    while token := _TOKEN.match(expression, place):
        place = token.end()
        text = token[str(token.lastgroup)]
        match token.lastgroup:
            case "opens":
                head = _HEAD.match(expression, place)
                assert head is not None  # it may be empty
                place = head.end()
                groups.append(_group(head))
                continue
            case "alternative":
                groups[-1].alternatives.append("")
                continue
            case "closes" if len(groups) > 1:
                text = str(groups.pop())
            case "dropped":
                text = ""
            case "variable":
                text = _VARIABLE
        groups[-1].alternatives[-1] += text
        if quantifier := _QUANTIFIER.match(expression, place):
            place = quantifier.end()
    return "".join(map(str, groups))


def _group(head: re.Match[str]) -> _Group:
    if name := head["name"]:
        return _Group(f"{{{name}}}")
    if head["aside"]:
        return _Group("")
    return _Group() if head["plain"] else _Group(_VARIABLE)
