"""Readable routes from the regular expressions of Django's ``re_path`` and of its extensions' routers."""

from __future__ import annotations

import functools
import re

_IS_EXPRESSION = re.compile(r"\(\?|[\\^$\[|]|\.[*+]")
"""Syntax that only a regular expression has; templates of ``path()`` may contain parentheses, too."""

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
"""The part of a group between its parenthesis and its content."""

_VARIABLE = "{var}"


class _Group:
    """A group, or the whole expression, as far as it has been parsed."""

    def __init__(self, written: str | None = None) -> None:
        self._written = written  # the fixed result, regardless of the content
        self.alternatives = [""]

    def __str__(self) -> str:
        if self._written is not None:
            return self._written
        text = "|".join(self.alternatives)
        return f"({text})" if len(self.alternatives) > 1 else text


@functools.lru_cache(maxsize=2048)
def readable(route: str) -> str:
    r"""Return a Django route as a template: ``^things/(?P<pk>[^/.]+)/$`` is ``/things/{pk}/``.

    Converters are unchanged (``<int:n>``), an unnamed group becomes ``{var}``, and optional parts are included.
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
                assert head is not None  # the pattern also matches the empty text
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
