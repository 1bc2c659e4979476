"""One figure beside its peer's, as the benchmarks print them."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any, TypeVar

Answer = TypeVar("Answer")


def figure(
    case: str, metric: str, unit: str, value: float, peer: tuple[str, float] | None, goal: tuple[str, bool] | None
) -> None:
    """Print a figure, its peer's name and value if it has one, and its goal and whether that is met."""
    line = {
        "bench": "history",
        "case": case,
        "metric": metric,
        "unit": unit,
        "value": round(value, 3),
        "peer": peer and peer[0],
        "peer_value": peer and round(peer[1], 3),
        "ratio": peer and round(value / peer[1], 4),
        "goal": goal and goal[0],
        "met": goal and goal[1],
    }
    print(json.dumps(line), flush=True)


def note(text: str) -> None:
    """Say how far it is."""
    print(text, file=sys.stderr, flush=True)


def timed(work: Callable[..., Answer], *arguments: Any) -> tuple[float, Answer]:
    """Do it, and say how many seconds it took."""
    start = time.perf_counter()
    answer = work(*arguments)
    return time.perf_counter() - start, answer
