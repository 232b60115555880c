"""A picture of figures by size, as SVG: lines over a logarithmic axis, from zero upwards."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 640, 300
LEFT, RIGHT, TOP, BOTTOM = 56, 180, 20, 40
COLOURS = ("#1f6feb", "#bf3989", "#1a7f37", "#9a6700")
STEPS = 4  # of the vertical axis

Points = Sequence[tuple[float, float]]  # size, figure


def curve(lines: Mapping[str, Points], across: str, up: str) -> str:
    """Give an SVG of one line a name; across, up: what the axes say."""
    sizes = sorted({x for points in lines.values() for x, _ in points})
    top = _rounded_up(max(y for points in lines.values() for _, y in points))
    plot = _Plot(math.log(sizes[0]), math.log(sizes[-1]), top)
    drawn = [_axes(plot, sizes, across, up)]
    for number, (name, points) in enumerate(lines.items()):
        drawn.append(_line(plot, name, points, number))
    style = 'font-family="sans-serif" font-size="12" fill="#57606a"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" {style}>'
    return "\n".join([head, f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>', *drawn, "</svg>", ""])


class _Plot:
    """Where figures stand in the picture."""

    def __init__(self, low: float, high: float, top: float) -> None:
        self._low, self._span, self.top = low, max(high - low, 1e-9), top

    def x(self, size: float) -> float:
        return LEFT + (math.log(size) - self._low) / self._span * (WIDTH - LEFT - RIGHT)

    def y(self, figure: float) -> float:
        return HEIGHT - BOTTOM - figure / self.top * (HEIGHT - TOP - BOTTOM)


def _axes(plot: _Plot, sizes: Sequence[float], across: str, up: str) -> str:
    drawn = []
    for step in range(STEPS + 1):
        figure, y = plot.top * step / STEPS, plot.y(plot.top * step / STEPS)
        drawn.append(f'<line x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}" stroke="#d0d7de"/>')
        drawn.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{figure:g}</text>')
    for size in sizes:
        drawn.append(
            f'<text x="{plot.x(size):.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{_short(size)}</text>'
        )
    middle = (LEFT + WIDTH - RIGHT) / 2
    drawn.append(f'<text x="{middle}" y="{HEIGHT - 6}" text-anchor="middle">{escape(across)}</text>')
    drawn.append(f'<text x="4" y="{TOP - 6}">{escape(up)}</text>')
    return "\n".join(drawn)


def _line(plot: _Plot, name: str, points: Points, number: int) -> str:
    colour = COLOURS[number % len(COLOURS)]
    places = [(plot.x(x), plot.y(y)) for x, y in sorted(points)]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in places)
    label = f'<text x="{WIDTH - RIGHT + 10}" y="{TOP + 14 + number * 18}" fill="{colour}">{escape(name)}</text>'
    return f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>{dots}{label}'


def _rounded_up(figure: float) -> float:
    """Give a round number at or above a figure, for the end of an axis."""
    unit = 10.0 ** math.floor(math.log10(max(figure, 1e-9)))
    return next(unit * n for n in (1, 2, 4, 8, 10) if unit * n >= figure)


def _short(size: float) -> str:
    for unit, name in ((1e6, " M"), (1e3, " K")):
        if size >= unit:
            return f"{size / unit:g}{name}"
    return f"{size:g}"
