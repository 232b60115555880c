"""Which windows a time lies in. Pure; all times are us since the epoch, to which windows are aligned.

Time is cut into panes, as long as the windows' step: all times of a pane lie in the same windows, so that rows are put
together by pane first, however many windows there are. Sessions have no panes: a row makes a window of its own, from
its time to the gap behind it, and windows of a group that touch become one.
"""

from __future__ import annotations

import numpy as np

from contracts.model import Window, WindowType
from lakehouse.groups import Ints

US = 1_000  # of a ms


def panes(window: Window, times: Ints) -> Ints:
    """Give the beginning of each time's pane."""
    step = window.step_ms * US
    return times // step * step


def windows_of(window: Window, beginnings: Ints) -> tuple[Ints, Ints, Ints]:
    """Give each pane's windows: which pane (its place), beginning and end."""
    step, size = window.step_ms * US, window.size_ms * US
    count, which = size // step, np.arange(len(beginnings))
    if window.type is WindowType.CUMULATE:
        first = beginnings // size * size
        passed = (beginnings - first) // step
        which = np.repeat(which, count - passed)
        number = np.arange(len(which)) - np.repeat(np.cumsum(count - passed) - count, count - passed)
        return which, first[which], first[which] + (number + 1) * step
    which = np.repeat(which, count)
    start = beginnings[which] - np.tile(np.arange(count) * step, len(beginnings))
    return which, start, start + size


def own_windows(window: Window, times: Ints) -> tuple[Ints, Ints, Ints]:
    """Give the windows that single times lie in: which time (its place), beginning and end."""
    if window.type is WindowType.SESSION:
        return np.arange(len(times)), times, times + window.size_ms * US
    return windows_of(window, panes(window, times))


def reach_us(window: Window) -> int:
    """Give how long a window is at most; of sessions, how far one row reaches."""
    return window.size_ms * US
