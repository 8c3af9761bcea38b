"""Secrets in text whose key is not before a ``:`` or ``=``, but in a tag, a table's header or an option.

Each function yields the spans of the values, in time linear in the length of the text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import islice

from mlflow_middleware.capture.secret_keys import Keys, is_made_by_machine, is_secret

Spans = Iterator[tuple[int, int]]

_MAX_TAG = 4000
"""Maximum number of characters of a tag, a part's headers or a line of column names that are examined."""


# --- HTML and XML ----------------------------------------------------------------------------------------------

_TAG = re.compile(r"<([A-Za-z_][\w.-]{0,100}:)?([A-Za-z_][\w.-]{0,100})((?:\s|/)[^<>]*)?>")
_ATTRIBUTE = re.compile(
    r"(?<![\w:.-])([\w:.-]{1,100})\s{0,20}=\s{0,20}(?:\\*\"([^\"<>]*)\"|\\*'([^'<>]*)'|([^\s\"'<>]+))"
)
_NAMES = frozenset(("name", "id", "key", "type", "property", "autocomplete", "http-equiv", "itemprop"))
_VALUES = frozenset(("value", "content", "data-value", "default"))
_HOLDERS = frozenset(
    [
        "textarea",
        "string",
        "property",
        "setting",
        "entry",
        "param",
        "parameter",
        "add",
        "value",
        "field",
        "item",
        "env",
        "var",
        "data",
    ]
)
"""Elements whose content is the value for the key in an attribute; that of a heading with an id is not."""


def in_tags(text: str, keys: Keys) -> Spans:
    """Find ``<password>…</password>``, ``<input name=password value=…>``, ``<add key="Password" value="…"/>``."""
    yield from _in_siblings(text, keys)
    position = 0
    while tag := _TAG.search(text, position):
        position = tag.end()
        kind = of_name = keys.kind(tag[2])
        attributes = list(_ATTRIBUTE.finditer(text, tag.start(3), tag.end(3))) if tag[3] else []
        named = [keys.kind(_attribute(each)) for each in attributes if each[1].lower() in _NAMES]
        kind = kind or next(filter(None, named), "")
        if not kind:
            continue
        for each in attributes:
            if each[1].lower() in _VALUES and is_secret(kind, _attribute(each)):
                yield each.span(each.lastindex or 0)
        if not (tag[3] or "").endswith("/") and (of_name or tag[2].lower() in _HOLDERS):
            end = _end_of_element(text, tag, (tag[1] or "") + tag[2])
            if end > position and is_secret(kind, text[position:end].strip()):
                yield position, end
                position = end


_SIBLINGS = re.compile(
    r"<((?:\w{1,30}:)?(?:name|key))>\s{0,20}([\w.-]{1,100})\s{0,20}</\1>\s{0,200}<((?:\w{1,30}:)?(?:value|string|data))>",
    re.IGNORECASE,
)
"""An element with a name, followed by one with its value, as in XML-RPC and property lists."""


def _in_siblings(text: str, keys: Keys) -> Spans:
    position = 0
    while found := _SIBLINGS.search(text, position):
        position = found.end()
        end = text.find(f"</{found[3]}", position)
        end = len(text) if end < 0 else end
        if (kind := keys.kind(found[2])) and is_secret(kind, re.sub("<[^<>]{0,100}>", "", text[position:end])):
            yield position, end
            position = end


def _attribute(match: re.Match[str]) -> str:
    return next((each for each in match.groups()[1:] if each is not None), "")


def _end_of_element(text: str, tag: re.Match[str], name: str) -> int:
    """Return the position of the closing tag, which cut text may lack; -1 for ``List<Token>``, which is not a tag."""
    found = text.find(f"</{name}", tag.end(), tag.end() + 65536)
    if found >= 0 or text[tag.start() - 1 : tag.start()].isalnum():
        return found
    before = text[max(0, tag.start() - _MAX_INDENT) : tag.start()]
    is_element = before.endswith(">") or before.rstrip(" \t")[-1:] in ("", "\n")
    if not is_element:  # a placeholder, as in ``export TOKEN=<token>``
        return -1
    following = text.find("<", tag.end())
    return len(text) if following < 0 else following


_MAX_INDENT = 100
"""Maximum number of characters of indentation before an element on its own line."""


# --- tables ----------------------------------------------------------------------------------------------------

_LINE = re.compile(r"[^\r\n]+")
_CELLS = {
    mark: re.compile(
        rf'[ \t]*(?:"([^"]*(?:""[^"]*)*)"[ \t]*|([^{re.escape(mark)}\r\n]*))(?:{re.escape(mark)}|(?=[\r\n])|\Z)'
    )
    for mark in ",;\t|"
}
_HEAD = re.compile(r"[\"']?[A-Za-z_#][\w.# -]{0,40}[\"']?")
_RULE = re.compile(r"[\s|:+-]*")


def in_tables(text: str, keys: Keys) -> Spans:
    """Find the columns in CSV, tab-separated values and Markdown tables whose header names a secret."""
    columns: list[int] = []
    mark, width, end = "", 0, 0
    for line in _LINE.finditer(text):
        if line.start() < end:
            continue
        if columns and (cells := _cells(text, line.start(), mark)) and len(cells) == width:
            end = cells[-1][1]
            if not _RULE.fullmatch(line[0]):
                yield from ((cells[column][0], cells[column][1]) for column in columns)
            continue
        mark, columns, width = _head(line[0], keys)


def _head(line: str, keys: Keys) -> tuple[str, list[int], int]:
    """Return the delimiter of a line of column names, the indexes of those that name a secret, and their number."""
    if len(line) <= _MAX_TAG:
        for mark in _CELLS:
            if mark not in line:
                continue
            names = [line[start:end].strip() for start, end in _cells(line, 0, mark)]
            given = [name for name in names if name]
            if len(given) > 1 and all(map(_HEAD.fullmatch, given)):
                found = [place for place, name in enumerate(names) if " " not in name and keys.kind(name) == "always"]
                if found and sum(" " in name for name in given) <= len(given) / 2:
                    return mark, found, len(names)
    return "", [], 0


def _cells(text: str, position: int, mark: str) -> list[tuple[int, int]]:
    """Return the spans of the cells in a line."""
    found: list[tuple[int, int]] = []
    while cell := _CELLS[mark].match(text, position):
        found.append(cell.span(1) if cell[1] is not None else cell.span(2))
        position = cell.end()
        if cell[0][-1:] != mark or text[position : position + 1] in ("", "\r", "\n"):
            break
    return found


# --- options and statements ------------------------------------------------------------------------------------

_OPTION = re.compile(r"(?<![\w-])--?([A-Za-z][\w-]{2,60})[ \t]+(?:\"([^\"\r\n]+)|'([^'\r\n]+)|([^\s\"'-][^\s\"']*))")
_USER = re.compile(r"(?<![\w-])(?:-u|--user|--proxy-user)[ =]?[\"']?[^\s:\"'/]{1,100}:([^\s\"']+)")
_STATEMENT = re.compile(
    r"(?i:\b(?:password|passwd|passphrase|pwd|identified by|master key)\b)(?: is| to| for \S{1,60} is)?[ \t]*"
    r"([\"'`])([^\"'`\s]{1,300})\1"
)
_BASIC = re.compile(
    r"\b\w{0,20}(?:Basic|Digest)Auth\(\s{0,20}[^,()]{1,200},\s{0,20}(?:\w{1,20}=)?[\"']([^\"'\r\n]{1,300})[\"']"
)
_NETRC = re.compile(r"\blogin\s{1,20}\S{1,200}\s{1,20}password\s{1,20}(\S+)")
_INSTRUCTION = re.compile(r"(?m:^)[ \t]*(?:ENV|ARG|SET|setx|setenv)[ \t]+([A-Za-z]\w{1,60})[ \t]+([^\s=][^\r\n]*)")


def in_options(text: str, keys: Keys) -> Spans:
    """Find ``--token …``, ``-u user:password``, ``IDENTIFIED BY '…'``, ``.netrc``, ``ENV PASSWORD …``."""
    for option in _OPTION.finditer(text):
        if keys.kind(option[1]) == "always":
            yield option.span(option.lastindex or 0)
    for instruction in _INSTRUCTION.finditer(text):
        if keys.kind(instruction[1]) == "always":
            yield instruction.span(2)
    if keys.kind("password"):
        if "curl" in text or "wget" in text:
            yield from (match.span(1) for match in _USER.finditer(text))
        yield from (match.span(2) for match in _STATEMENT.finditer(text))
        yield from (match.span(1) for match in _NETRC.finditer(text))
        yield from (match.span(1) for match in _BASIC.finditer(text))


# --- sections and parts ----------------------------------------------------------------------------------------

_SECTION = re.compile(r"(?m:^)[ \t]*\[{1,2}([\w.\"' -]{1,100})\]{1,2}[ \t]*(?:#.*)?$", re.MULTILINE)
_ASSIGNED = re.compile(r"(?m:^)[ \t]*[\w.-]{1,100}[ \t]*[=:][ \t]*([^\r\n]+)")
_PART = re.compile(r"(?i:content-disposition:)[^\r\n]{0,200}?\bname=\"?([^\";\r\n]{1,200})")
_BLANK_LINE = re.compile(r"\r?\n[ \t]*\r?\n")
_BOUNDARY = re.compile(r"\r?\n--|\Z")


def in_sections(text: str, keys: Keys) -> Spans:
    """Find all values in a section of TOML or INI whose name marks a secret, such as ``[secrets]``."""
    sections = list(_SECTION.finditer(text))
    for section, following in zip(sections, [*sections[1:], None], strict=False):
        name = section[1].strip("\"' ")
        if " " not in name and keys.kind(name) == "always":
            end = following.start() if following else len(text)
            yield from (match.span(1) for match in _ASSIGNED.finditer(text, section.end(), end))


def in_parts(text: str, keys: Keys) -> Spans:
    """Find the parts of multipart/form-data that was sent under another type."""
    position = 0
    while part := _PART.search(text, position):
        position = part.end()
        blank = _BLANK_LINE.search(text, position, position + _MAX_TAG)
        if blank and (kind := keys.kind(part[1])):
            end = _BOUNDARY.search(text, blank.end())
            position = end.start() if end else len(text)
            if is_secret(kind, text[blank.end() : position]):
                yield blank.end(), position


# --- messages of validators ------------------------------------------------------------------------------------

_INPUT_VALUE, _INPUT_TYPE = re.compile(r"\[type=[\w.-]{1,100}, input_value="), ", input_type="
_LOCATION = re.compile(r"[\"']loc\\*[\"']\s{0,20}:\s{0,20}[\[(]([^\])]{0,1000})[\])]")
_INPUT = re.compile(r"[\"'](?:input|ctx)\\*[\"']\s{0,20}:\s{0,20}")
_STRING = re.compile(r"[\"']([^\"'\\]{1,200})\\*[\"']")
_PARAMETERS = re.compile(r"\[parameters: ")
_COLUMN = re.compile(r"\w{2,60}")
_DETAIL = re.compile(
    r"\bKey \(([^()\n]{1,300})\)=\(([^\n]{0,500}?)\)(?=[\s\\\"']|\Z)"
    r"|Duplicate entry '([^'\n]{1,300})' for key '([^'\n]{1,200})'"
)
_INSERT = re.compile(
    r"(?i:\binsert\s{1,9}into)\s{1,9}\S{1,100}\s{0,9}\(([^()]{1,2000})\)\s{0,9}(?i:values)\s{0,9}(\([^\r\n]*)"
)
_PAIR = re.compile(r"b?[\"']([A-Za-z][\w-]{1,60})[\"'],\s{0,5}b?[\"']([^\"'\n]{1,2000})[\"']")
"""A header as HTTP libraries and ASGI represent it: ``(b'authorization', b'…')``."""

_MAX_MESSAGES = 20
"""Maximum number of messages of each kind that are examined."""

_NAMED = re.compile(
    r"(?i:\b(?:name|key|header|field|param|parameter|label|variable|property|parameterkey))\\?[\"']?\s{0,5}[:=]\s{0,5}\\?[\"']?([\w.-]{1,100})"
    r"\\?[\"']?[\s,;]{1,80}\\?[\"']?(?i:value|val|values|stringValue|string_value|parametervalue)\\?[\"']?\s{0,5}[:=]\s{0,5}"
)
"""An entry that names a secret, directly followed by one with its value: ``- name: TOKEN``, ``  value: …``."""

_SCHEMA = re.compile(r"On instance((?:\[[^\]\n]{1,100}\]){1,20}):\n([^\n]*(?:\n[ \t]+[^\n]*)*)")


def in_messages(text: str, keys: Keys, value_end: Callable[[str, int], int]) -> Spans:
    """Find rejected values in messages of Pydantic, FastAPI, SQLAlchemy and jsonschema.

    Args:
        text: The message.
        keys: The keys that hold secrets.
        value_end: Returns the end of the literal that begins at a position.
    """
    yield from _in_pydantics(text, keys)
    for instance in islice(_SCHEMA.finditer(text), _MAX_MESSAGES):
        if any(keys.kind(name) for name in _STRING.findall(instance[1])):
            yield instance.span(2)
            start = text.find(instance[2].strip(), 0, instance.start())
            if start >= 0:
                yield start, start + len(instance[2].strip())
    for parameters in islice(_PARAMETERS.finditer(text), _MAX_MESSAGES):
        statement = text[max(0, parameters.start() - _MAX_TAG) : parameters.start()]
        if any(keys.kind(name) for name in _COLUMN.findall(statement)):
            end = text.find("\n", parameters.end())
            yield parameters.end(), len(text) if end < 0 else end
    position = 0
    while (name := _NAMED.search(text, position)) is not None:
        position = name.end()
        if keys.kind(name[1]) == "always":
            position = max(value_end(text, position), position)
            yield name.end(), position
    yield from _in_rows(text, keys)
    yield from _in_pairs(text, keys)
    yield from _beside_locations(text, keys, value_end)


def _in_pydantics(text: str, keys: Keys) -> Spans:
    """Find ``input_value`` below a line that names a secret; in an exception group, both lines are indented."""
    position = 0
    while found := _INPUT_VALUE.search(text, position):
        end_of_line = text.find("\n", found.end())
        position = len(text) if end_of_line < 0 else end_of_line
        end = text.rfind(_INPUT_TYPE, found.end(), position)
        line = text.rfind("\n", 0, found.start())
        if end < 0 or line < 0:
            continue
        name = text[max(text.rfind("\n", 0, line) + 1, line - _MAX_TAG) : line].strip(" \t\r|")
        if any(keys.kind(each) for each in name.split(".")):
            yield found.end(), end


def _in_rows(text: str, keys: Keys) -> Spans:
    """Find values in databases' messages: ``Key (token)=(…) already exists``, duplicate entries, INSERT statements."""
    for detail in _DETAIL.finditer(text):
        columns, place = (detail[1], 2) if detail[1] else (detail[4], 3)
        if any(keys.kind(name) for name in _COLUMN.findall(columns)):
            yield detail.span(place)
    for insert in islice(_INSERT.finditer(text), _MAX_MESSAGES):
        if any(keys.kind(name) for name in _COLUMN.findall(insert[1])):
            yield insert.span(2)


def _in_pairs(text: str, keys: Keys) -> Spans:
    """Find ``('Authorization', '…')``, but not two names in a row."""
    for pair in _PAIR.finditer(text):
        if is_secret(keys.kind(pair[1]), pair[2]) and is_made_by_machine(pair[2].rpartition(" ")[2]):
            yield pair.span(2)


def _beside_locations(text: str, keys: Keys, value_end: Callable[[str, int], int]) -> Spans:
    """Find ``input`` and ``ctx`` around a ``loc`` that names a secret, up to the next ``loc``."""
    locations = list(_LOCATION.finditer(text))
    position = 0
    for index, location in enumerate(locations):
        if not any(keys.kind(name) for name in _STRING.findall(location[1])):
            continue
        position = max(position, locations[index - 1].end() if index else 0)
        stop = locations[index + 1].start() if index + 1 < len(locations) else len(text)
        while (found := _INPUT.search(text, position, stop)) is not None:
            position = max(value_end(text, found.end()), found.end())
            yield found.end(), position
