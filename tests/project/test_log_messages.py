"""Each line that the library logs can be searched for, and docs/log-messages.md tells what it means."""

from __future__ import annotations

from tests import log_messages


def test_each_line_has_one_meaning() -> None:
    """Another line needs an entry of `MEANINGS`, whose key is how the line begins."""
    found = {line.text: len(log_messages.meaning_of(line)) for line in log_messages.lines()}
    assert {text: count for text, count in found.items() if count != 1} == {}


def test_each_meaning_is_that_of_a_line() -> None:
    """One that is left over is to go."""
    used = {key for line in log_messages.lines() for key in log_messages.meaning_of(line)}
    assert log_messages.MEANINGS.keys() - used == set()


def test_a_line_begins_with_words() -> None:
    """And not with what differs, by which nobody can search."""
    assert [line.text for line in log_messages.lines() if line.text.find("%") in range(15)] == []
