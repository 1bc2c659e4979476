"""What the actors of a run share: the cluster, the record, the clock of the run, and how the load stands."""

from __future__ import annotations

import asyncio
import random
import time

from cluster import Cluster
from forms import Form
from record import Batch, History, Outcome


class World:
    """One run."""

    def __init__(self, form: Form, seed: int, cluster: Cluster) -> None:
        self.form = form
        self.cluster = cluster
        self.history = History(form.name, seed)
        # Unix nanoseconds at which the run began.
        self.start = time.time_ns()
        self._begin = time.monotonic()
        self.acknowledged_batches = 0
        self.acknowledged_ticks = 0
        # Who waits for how many acknowledged batches.
        self._waiting: list[tuple[int, asyncio.Event]] = []
        # The newest acknowledgement: a batch and its cursor.
        self.newest: tuple[int, bytes] = (0, b"")
        # Set when no further fault strikes.
        self.calm = asyncio.Event()
        # Set when nothing more is sent.
        self.quiet = asyncio.Event()
        # Losses that are still to come, and when the last one is forgotten by every replica, in seconds of the run.
        self.losses = form.promotions
        self.forgotten = 0.0

    def choose(self, actor: str) -> random.Random:
        """Return what an actor's decisions are drawn from."""
        return random.Random(f"{self.history.seed} {actor}")

    def now(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self._begin

    def mark(self, part: str) -> None:
        """Note how long a part of the run took that ends now."""
        self.history.seconds[part] = self.now() - sum(self.history.seconds.values())

    def lost(self) -> None:
        """Note that a standby was promoted. A replica that is frozen meanwhile learns of it when it wakes up."""
        self.losses -= 1
        self.forgotten = self.now() + max(self.form.freezes, default=0.0) + 10

    def is_settled(self) -> bool:
        """Whether whatever is told from now on is of a log that loses nothing any more."""
        return self.losses == 0 and self.now() >= self.forgotten

    def address(self, replica: int) -> str:
        """Where a replica listens."""
        return self.cluster.replicas[replica].address

    def acknowledge(self, name: int, cursor: bytes) -> None:
        """Note that a batch was acknowledged."""
        batch: Batch = self.history.batches[name]
        if batch.outcome is Outcome.ACKNOWLEDGED:
            return
        batch.outcome = Outcome.ACKNOWLEDGED
        batch.cursor = cursor
        self.acknowledged_batches += 1
        self.acknowledged_ticks += len(batch)
        now = self.now()
        self.history.first_acknowledgement = self.history.first_acknowledgement or now
        self.history.last_acknowledgement = now
        if cursor:
            self.newest = (name, cursor)
        for goal, reached in self._waiting:
            if self.acknowledged_batches >= goal:
                reached.set()

    async def acknowledged(self, batches: int) -> None:
        """Wait until so many batches are acknowledged."""
        reached = asyncio.Event()
        waiting = (batches, reached)
        self._waiting.append(waiting)
        try:
            await reached.wait()
        finally:
            self._waiting.remove(waiting)

    def in_flight(self) -> int:
        """Count the batches that were sent and are not known to be stored."""
        return sum(batch.outcome is Outcome.UNKNOWN for batch in self.history.batches.values())

    def load_is_done(self) -> bool:
        """Whether enough was sent, and every fault has struck."""
        return self.is_over() or (self.calm.is_set() and self.acknowledged_ticks >= self.form.ticks)

    def is_over(self) -> bool:
        """Whether the load stands still for good, so that what is pending stays so."""
        return bool(self.history.standstill)
