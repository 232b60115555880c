"""Durations as Delta table properties write them: `interval 30 days`, `interval 1 week`."""

from __future__ import annotations

from datetime import timedelta

from contracts.durations import parse_duration


def interval(written: str) -> timedelta | None:
    """Give a property's duration; None for one that is written in a way not known here."""
    try:
        return timedelta(milliseconds=parse_duration(written.strip().lower().removeprefix("interval")))
    except (ValueError, OverflowError):
        return None
