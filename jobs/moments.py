"""Moments as people write them: a date and time, or how long ago."""

from __future__ import annotations

from datetime import UTC, datetime

from contracts.durations import parse_duration


def moment_ms(text: str, now_ms: int) -> int:
    """Give a moment (ms since the epoch): `2026-01-31T12:00`, in UTC where no zone is named, or `2h` for so long ago.

    Raises ValueError for anything else.
    """
    try:
        return now_ms - parse_duration(text)
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is neither a time such as 2026-01-31T12:00 nor how long ago, such as 2h") from None
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
