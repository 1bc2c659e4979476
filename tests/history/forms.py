"""How much of everything a run has."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Form:
    """The load, and the faults that strike while it runs."""

    name: str
    # Ticks that are sent at least, and over how many seconds; the load goes on until the last fault is over.
    ticks: int
    seconds: float
    replica_kills: int
    postgres_kills: int
    redis_kills: int
    flushes: int
    # How long replicas are frozen, in seconds, one after the other.
    freezes: tuple[float, ...] = ()
    promotions: int = 0


SHORT = Form("short", 100_000, 70, replica_kills=4, postgres_kills=2, redis_kills=4, flushes=1)

LONG = Form(
    "long",
    # Some are lost with the primary: a million stay.
    1_050_000,
    420,
    replica_kills=20,
    postgres_kills=10,
    redis_kills=20,
    flushes=5,
    freezes=(20, 2, 7, 12, 1, 20, 4, 16),
    promotions=1,
)

# For planted defects: something of everything, in a small time.
BRIEF = Form(
    "brief",
    40_000,
    36,
    replica_kills=2,
    postgres_kills=2,
    redis_kills=1,
    flushes=1,
    freezes=(3,),
    promotions=1,
)

FORMS = {form.name: form for form in (SHORT, LONG, BRIEF)}
