"""The corpus of secrets in ``tests/data/secrets.json``: what real apps send, by its shape."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Case:
    """A body with a secret, and one that only looks like it.

    Attributes:
        name: Its shape, and its number there.
        type: The media type of both.
        secret: What must not be stored.
        leak: The body that holds it.
        twin: The body that has to be stored as it is.
    """

    name: str
    type: str
    secret: str
    leak: str
    twin: str

    def __str__(self) -> str:
        return self.name

    def is_clean(self, stored: str) -> bool:
        """Whether the secret is not in what is stored, also not as JSON writes it."""
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
"""What begins one secret after the other when it is repeated, and ends none."""
