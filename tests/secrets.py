"""The corpus of secrets in ``tests/data/secrets.json``: secrets in the formats of real apps."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Case:
    """A body with a secret, and a similar body without one.

    Attributes:
        name: Its format, and its number there.
        type: The media type of both.
        secret: The text that must not be stored.
        leak: The body that contains it.
        twin: The body that must be stored unchanged.
    """

    name: str
    type: str
    secret: str
    leak: str
    twin: str

    def __str__(self) -> str:
        return self.name

    def is_clean(self, stored: str) -> bool:
        """Return whether the secret is missing in the stored text, also as JSON escapes it."""
        return self.secret not in stored and json.dumps(self.secret)[1:-1] not in stored


def _cases() -> list[Case]:
    text = (Path(__file__).parent / "data" / "secrets.json").read_text(encoding="utf-8")
    return [
        Case(f"{shape} {number}", each["type"], each["secret"], each["leak"], each["twin"])
        for shape, cases in json.loads(text).items()
        for number, each in enumerate(cases, 1)
    ]


CASES = _cases()

STARTS = (
    *('"token": {', "token={", "password:\n", "<password>", "<a name=password value=", "'loc': ('password')", "\\"),
    *("session=[", "name,password\n", '"a"b,', "[parameters: ", "eyJ-", "sk-a", "://a:", "[type=x, input_value="),
    *(
        "name: token\n value: {",
        "key: password: ",
        "API key: ",
        "login a password ",
        '"',
        "<input name=password value=",
    ),
)
"""Return one text that repeats the starts of secrets and completes none."""
