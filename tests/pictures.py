"""Whether the pictures in the documentation are as new as the code that they show."""

from __future__ import annotations

import hashlib
import json

from tests.servers import ROOT

HASHES = ROOT / "tests" / "data" / "pictures.json"
_CHAT = ("examples/chat/shared.py", "examples/chat/fastapi_app.py", "tests/screenshots.py")
SHOWN = {
    "chat-page.png": (*_CHAT, "examples/chat/page.html"),
    "chat-sessions.png": _CHAT,
    "chat-trace.png": _CHAT,
}
"""Picture in ``docs/`` -> the code that it shows; ``python -m tests.screenshots`` takes them."""


def record(name: str, picture: bytes) -> None:
    """Write a picture, and the hash of the code that it shows."""
    (ROOT / "docs" / name).write_bytes(picture)
    HASHES.write_text(json.dumps({**_recorded(), name: shown(name)}, indent=2, sort_keys=True) + "\n")


def outdated() -> list[str]:
    """Return the pictures that show older code."""
    recorded = _recorded()
    return [name for name in SHOWN if recorded.get(name) != shown(name)]


def shown(name: str) -> str:
    """Hash the code that a picture shows."""
    return hashlib.sha256(b"".join((ROOT / source).read_bytes() for source in SHOWN[name])).hexdigest()


def _recorded() -> dict[str, str]:
    found: dict[str, str] = json.loads(HASHES.read_text()) if HASHES.exists() else {}
    return found
