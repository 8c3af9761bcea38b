"""The figures as bars, in an SVG that needs no library and is readable on light and dark pages."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from html import escape

BAR, GAP, LEFT, WIDTH = 22, 8, 290, 300
COLOURS = {
    "ours, everything captured": "#2a9d8f",
    "MLflow by hand": "#c8553d",
    "MLflow by hand, exported to nowhere": "#a9a9a9",
    "OpenTelemetry to MLflow": "#d9a441",
}

Series = Mapping[str, tuple[list[float], list[float]]]


def plot(frameworks: Mapping[str, Series]) -> str:
    """Draw two columns of bars, throughput kept and CPU added, with their spread, one block for each framework."""
    parts: list[str] = []
    top = 40
    for framework, series in frameworks.items():
        most = max([1.0, *(max(cpu) for _, cpu in series.values())])
        parts.append(_text(10, top, framework, "bold"))
        parts.append(_text(LEFT, top, "share of untraced throughput kept"))
        parts.append(_text(LEFT + WIDTH + 80, top, "CPU added to a request, µs"))
        for name, (kept, cpu) in series.items():
            top += BAR + GAP
            parts.append(_text(10, top, name))
            colour = COLOURS.get(name, "#6aa9a1")
            parts.append(_bar(LEFT, top, kept, 1.0, colour, "{:.2f}"))
            parts.append(_bar(LEFT + WIDTH + 80, top, cpu, most, colour, "{:.0f}"))
        top += 2 * BAR + GAP
    width = LEFT + 2 * WIDTH + 160
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{top}" viewBox="0 0 {width} {top}" '
        'font-family="sans-serif" font-size="14">\n'
        f'<rect width="{width}" height="{top}" fill="#ffffff"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _text(x: float, y: float, text: str, weight: str = "normal") -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}" font-weight="{weight}" fill="#222222">{escape(text)}</text>'


def _bar(x: float, y: float, values: list[float], most: float, colour: str, form: str) -> str:
    scale = WIDTH / most
    middle, low, high = statistics.median(values), min(values), max(values)
    bar = f'<rect x="{x}" y="{y - BAR + 6}" width="{max(1.0, middle * scale):.1f}" height="{BAR}" fill="{colour}"/>'
    y_line = y - BAR / 2 + 6
    line = (
        f'<line x1="{x + max(0.0, low * scale):.1f}" x2="{x + max(0.0, high * scale):.1f}" y1="{y_line}" y2="{y_line}" '
        'stroke="#222222" stroke-width="2"/>'
    )
    return bar + line + _text(x + max(0.0, high) * scale + 8, y, form.format(middle))
