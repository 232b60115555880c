"""What goes wrong with the local stack.

TidegateError
└── StackError     a component cannot be set up, started or stopped; the message says what to do
    └── NotRunning    something was asked of a component that is not running
"""

from __future__ import annotations

from jobs.errors import TidegateError


class StackError(TidegateError):
    """A component cannot be set up, started or stopped."""


class NotRunning(StackError):  # noqa: N818 (a state of the component)
    """Something was asked of a component that is not running."""
