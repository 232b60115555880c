"""Marks on a sheet with a horizontal and a vertical axis, as SVG."""

from __future__ import annotations

from collections.abc import Sequence
from xml.sax.saxutils import escape

WIDTH, LEFT, RIGHT, TOP, BOTTOM = 720, 64, 24, 28, 44
BLUE, PURPLE, GREEN, RED, GREY = "#1f6feb", "#8250df", "#1a7f37", "#cf222e", "#57606a"
STYLE = 'font-family="sans-serif" font-size="12"'


class Sheet:
    """Draws at the places of two axes; the vertical one grows upwards, unless the sheet hangs."""

    def __init__(
        self, across: tuple[float, float], up: tuple[float, float], height: int, *, hangs: bool = False
    ) -> None:
        self._across, self._up, self._height, self._hangs = across, up, height, hangs
        self._drawn: list[str] = []

    def x(self, value: float) -> float:
        """Give where a value of the horizontal axis lies."""
        low, high = self._across
        return LEFT + (value - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        """Give where a value of the vertical axis lies."""
        low, high = self._up
        share = (value - low) / (high - low)
        return TOP + (share if self._hangs else 1 - share) * (self._height - TOP - BOTTOM)

    def dot(self, x: float, y: float, colour: str, *, hollow: bool = False) -> None:
        fill = "#ffffff" if hollow else colour
        self._add(f'<circle cx="{self.x(x):.1f}" cy="{self.y(y):.1f}" r="4" fill="{fill}" stroke="{colour}" '
                  'stroke-width="1.5"/>')  # fmt: skip

    def path(self, places: Sequence[tuple[float, float]], colour: str) -> None:
        points = " ".join(f"{self.x(x):.1f},{self.y(y):.1f}" for x, y in places)
        self._add(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')

    def bar(self, start: float, end: float, y: float, colour: str, text: str) -> None:
        x, width = self.x(start), self.x(end) - self.x(start)
        self._add(f'<rect x="{x:.1f}" y="{self.y(y) - 9:.1f}" width="{width:.1f}" height="18" rx="3" fill="{colour}" '
                  f'fill-opacity="0.15" stroke="{colour}"/>')  # fmt: skip
        self.text(x + 8, self.y(y) + 4, text, colour)

    def upright(self, x: float, colour: str, text: str, row: int = 0, *, dashed: bool = False) -> None:
        dash = ' stroke-dasharray="4 3"' if dashed else ""
        self._add(f'<line x1="{self.x(x):.1f}" y1="{TOP}" x2="{self.x(x):.1f}" y2="{self._height - BOTTOM}" '
                  f'stroke="{colour}" stroke-width="1.5"{dash}/>')  # fmt: skip
        self.text(self.x(x) + 5, TOP + 14 + row * 18, text, colour)

    def text(self, x: float, y: float, text: str, colour: str = GREY, anchor: str = "start") -> None:
        self._add(f'<text x="{x:.1f}" y="{y:.1f}" fill="{colour}" text-anchor="{anchor}">{escape(text)}</text>')

    def axis_across(self, ticks: Sequence[float], title: str) -> None:
        y = self._height - BOTTOM
        self._add(f'<line x1="{LEFT}" y1="{y}" x2="{WIDTH - RIGHT}" y2="{y}" stroke="#d0d7de"/>')
        for tick in ticks:
            self.text(self.x(tick), y + 16, f"{tick:g}", anchor="middle")
        self.text((LEFT + WIDTH - RIGHT) / 2, self._height - 8, title, anchor="middle")

    def axis_up(self, ticks: Sequence[float], title: str) -> None:
        for tick in ticks:
            self._add(f'<line x1="{LEFT}" y1="{self.y(tick):.1f}" x2="{WIDTH - RIGHT}" y2="{self.y(tick):.1f}" '
                      'stroke="#eaeef2"/>')  # fmt: skip
            self.text(LEFT - 8, self.y(tick) + 4, f"{tick:g}", anchor="end")
        self.text(8, TOP - 12, title)

    def svg(self) -> str:
        """Give the picture."""
        head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {self._height}" width="{WIDTH}" {STYLE}>'
        return "\n".join(
            [head, f'<rect width="{WIDTH}" height="{self._height}" fill="#ffffff"/>', *self._drawn, "</svg>", ""]
        )

    def _add(self, drawn: str) -> None:
        self._drawn.append(drawn)
