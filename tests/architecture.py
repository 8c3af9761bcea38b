"""Draws the rooms of the code, with arrows for their imports: ``python -m tests.architecture`` writes the picture."""

from __future__ import annotations

import ast
import functools
from collections import defaultdict
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import NamedTuple

from tests.servers import ROOT

PICTURE = ROOT / "docs" / "architecture.svg"
ROOTS = (ROOT / "adapters" / "mlflow_middleware", ROOT / "middleware" / "mlflow_middleware")


class Room(NamedTuple):
    """A box of the picture; its row follows from its imports.

    Attributes:
        name: The label.
        purpose: The text below the label.
        parts: Its modules and packages, below ``mlflow_middleware``.
        column: Its column, counted from the left.
    """

    name: str
    purpose: str
    parts: str
    column: int


ROOMS = (
    Room("adapters", "FastAPI, Flask, Django", "fastapi flask django", 2),
    Room("commands", "the command line", "commands cli demo", 3),
    Room("auto", "mlflow-middleware run", "auto", 0),
    Room("asgi, wsgi", "protocol to Exchange", "asgi wsgi", 2),
    Room("feedback", "votes of users", "feedback", 3),
    Room("metrics", "Prometheus, OpenTelemetry", "metrics", 1),
    Room("request_trace", "what an app calls inside", "request_trace logs", 2),
    Room("request", "the life of one request", "request", 2),
    Room("traces", "finding traces", "traces summaries ratings", 4),
    Room("testing", "traces for your tests", "testing pytest_plugin", 1),
    Room("delivery", "queue, sender, spool", "delivery", 2),
    Room("mlflow_bridge", "MLflow's objects, encoding", "mlflow_bridge", 2),
    Room("trace", "the record: plain data", "trace", 2),
    Room("capture", "bodies, streams, secrets", "capture", 2),
)
SHARED = "settings identity identity_sources identity_presets exchange propagation routing _internal"
"""Rooms that all others may import: values without behaviour of their own."""

ASIDE = {"commands", "auto"}
"""Rooms whose imports do not count for others: an app's requests do not pass through them."""

ROOM_OF = {part: room.name for room in ROOMS for part in room.parts.split()} | dict.fromkeys(SHARED.split(), "")
PITCH_X, PITCH_Y, WIDTH, HEIGHT = 200, 74, 176, 44


def arrows() -> dict[str, set[str]]:
    """Return the rooms that each room imports, also inside functions, without those that another import implies.

    Raises:
        KeyError: A module is in none of the rooms.
    """
    found: defaultdict[str, set[str]] = defaultdict(set)
    for root in ROOTS:
        for file in sorted(root.rglob("*.py")):
            room = ROOM_OF[file.relative_to(root).parts[0].removesuffix(".py")]
            found[room] |= {ROOM_OF[part] for part in _imported(file)} - {room, ""}

    @functools.cache
    def below(room: str) -> frozenset[str]:
        return frozenset(found[room]).union(*map(below, found[room]))

    return {
        room.name: {to for to in found[room.name] if not any(to in below(each) for each in found[room.name] - ASIDE)}
        for room in ROOMS
    }


def _imported(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
        if isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{name}" for name in names]
        yield from (name.split(".")[1] for name in names if name.startswith("mlflow_middleware."))


def drawing() -> str:
    """Return the picture as SVG."""
    known = arrows()

    @functools.cache
    def rank(room: str) -> int:
        return 1 + max(map(rank, known[room]), default=-1)

    rows = max(map(rank, known))
    places = {room.name: (room.column * PITCH_X + 12, (rows - rank(room.name)) * PITCH_Y + 12) for room in ROOMS}
    lines = [_line(places[room], places[to]) for room in known for to in sorted(known[room])]
    boxes = [_box(*places[room.name], WIDTH, room.name, room.purpose) for room in ROOMS]
    width, height = 5 * PITCH_X, (rows + 2) * PITCH_Y
    shared = _box(12, height - PITCH_Y + 12, width - 24, "known to all rooms", SHARED.replace(" ", ", "))
    style = "text{font:12px sans-serif;text-anchor:middle}rect{fill:#eef1fb;stroke:#3f51b5}path{stroke:#666;fill:none}"
    head = '<marker id="a" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">',
            f"<style>{style}</style>",
            f'<defs>{head}<path d="M0,1 8,4 0,7"/></marker></defs>',
            *lines,
            *boxes,
            shared,
            "</svg>\n",
        ]
    )


def _line(start: tuple[int, int], end: tuple[int, int]) -> str:
    middle = WIDTH // 2
    path = f"M{start[0] + middle},{start[1] + HEIGHT} {end[0] + middle},{end[1]}"
    return f'<path d="{path}" marker-end="url(#a)"/>'


def _box(x: int, y: int, width: int, name: str, purpose: str) -> str:
    box = f'<rect x="{x}" y="{y}" width="{width}" height="{HEIGHT}" rx="5"/>'
    lines = ((18, "bold", name), (35, "normal", purpose))
    return box + "".join(
        f'<text x="{x + width // 2}" y="{y + down}" font-weight="{weight}">{escape(text)}</text>'
        for down, weight, text in lines
    )


if __name__ == "__main__":
    PICTURE.write_text(drawing())
