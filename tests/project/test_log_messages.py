"""Each line that the library logs can be searched for, and is explained in docs/log-messages.md."""

from __future__ import annotations

from tests import log_messages


def test_each_line_has_one_meaning() -> None:
    """A new line needs an entry of `MEANINGS`, whose key is the start of the line."""
    found = {line.text: len(log_messages.meaning_of(line)) for line in log_messages.lines()}
    assert {text: count for text, count in found.items() if count != 1} == {}


def test_each_meaning_belongs_to_a_line() -> None:
    """Remove one that is left over."""
    used = {key for line in log_messages.lines() for key in log_messages.meaning_of(line)}
    assert log_messages.MEANINGS.keys() - used == set()


def test_a_line_begins_with_words() -> None:
    """Variable parts, which cannot be searched for, come later."""
    assert [line.text for line in log_messages.lines() if line.text.find("%") in range(15)] == []
