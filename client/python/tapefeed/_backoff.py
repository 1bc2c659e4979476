"""Delays between attempts: exponential, jittered, and never shorter than the server asks for."""

from __future__ import annotations

import random
from typing import Final

# The longest delay that a server can ask for, in seconds.
_LONGEST_ASKED: Final = 60.0


class Backoff:
    """A series of growing delays, in seconds.

    Each is drawn from the upper half of its step, so that clients that were cut together do not come back together.
    """

    def __init__(self, first: float, longest: float) -> None:
        self._first = first
        self._longest = longest
        self._step = first

    def next(self, asked: float | None) -> float:
        """Return the next delay; `asked` is what the server asks for."""
        delay = self._step * random.uniform(0.5, 1.0)
        self._step = min(self._step * 2, self._longest)
        if asked is None:
            return delay
        return max(delay, min(asked, _LONGEST_ASKED) * random.uniform(1.0, 1.2))

    def reset(self) -> None:
        """Begin anew after a success."""
        self._step = self._first
