"""What a run records, and the checker reads: who sent what, and what each reader was told, in its order.

A tick is named by one number that its sender chose: the producer, the number of its batch, the place in it. What it
says is a sum over its content, so that a record of millions of ticks stays small. Corrections and cancels are ticks of
their own here, as streams tell them.
"""

from __future__ import annotations

import gzip
import pickle
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

INDEX_BITS = 12
NUMBER_BITS = 32


def batch_name(producer: int, number: int) -> int:
    """Name a batch: producers count from 1, and each counts its batches."""
    return producer << NUMBER_BITS | number


def tick_name(batch: int, index: int) -> int:
    """Name a tick by its batch and its place in it."""
    return batch << INDEX_BITS | index


def batch_of(tick: int) -> int:
    """Name the batch of a tick."""
    return tick >> INDEX_BITS


def spelled(tick: int) -> str:
    """Spell a tick's name as its trade id does."""
    batch, index = tick >> INDEX_BITS, tick & (1 << INDEX_BITS) - 1
    return f"{batch >> NUMBER_BITS}-{batch & (1 << NUMBER_BITS) - 1}-{index}"


@dataclass(slots=True)
class Ticks:
    """Ticks in the order in which they came, by columns."""

    # Positions in the log.
    log_seqs: array[int] = field(default_factory=lambda: array("Q"))
    # Names of ticks; a number that names none where no producer of ours made it.
    names: array[int] = field(default_factory=lambda: array("Q"))
    # In the upper half the sum over what the producer says, in the lower one over what the server adds.
    sums: array[int] = field(default_factory=lambda: array("Q"))

    def add(self, log_seq: int, name: int, content: int, stamp: int) -> None:
        """Note one more tick."""
        self.log_seqs.append(log_seq)
        self.names.append(name)
        self.sums.append(content << 32 | stamp)

    def __len__(self) -> int:
        return len(self.log_seqs)

    def __iter__(self) -> Iterator[tuple[int, int, int]]:
        return zip(self.log_seqs, self.names, self.sums, strict=True)


class Outcome(Enum):
    """What a producer knows of its batch."""

    UNKNOWN = "unknown"
    ACKNOWLEDGED = "acknowledged"
    # Sent on the stream of an older claim after a newer one was granted: it may never be stored.
    FENCED = "fenced"


@dataclass(slots=True)
class Correction:
    """What a tick says about an earlier trade of its producer."""

    # The trade's name.
    trade: int
    # The sum over what the trade says then; None: it is taken back.
    content: int | None


@dataclass(slots=True)
class Batch:
    """One batch as it was sent."""

    # Of each tick: the number of its instrument, the sum over its content, its quantity in hundredths.
    instruments: array[int]
    contents: array[int]
    quantities: array[int]
    backfill: bool
    outcome: Outcome = Outcome.UNKNOWN
    # The cursor of its acknowledgement; empty if only a grant said that it is stored.
    cursor: bytes = b""
    # Whether the server refuses that cursor at the end, as lost by a fork of the epoch, or grants a later claim of its
    # producer a smaller number.
    disowned: bool = False
    # The ticks that are no trades, by their places.
    corrections: dict[int, Correction] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.contents)


@dataclass(slots=True)
class Fork:
    """An epoch that a server names in a refusal, with the last position that it shares with its parent."""

    epoch: int
    parent: int
    log_seq: int


@dataclass(slots=True)
class Progress:
    """The claim that the stream is complete up to a position, made after so many ticks of the session."""

    after: int
    log_seq: int


@dataclass(slots=True)
class Gap:
    """The notice that positions are missing, made after so many ticks of the session."""

    after: int
    first: int
    last: int


@dataclass(slots=True)
class Session:
    """One stream of a subscription, from its start to its end."""

    replica: int
    # The stream begins behind this position of this epoch's log.
    asked_epoch: int
    asked: int
    # The epoch that the server reads; 0 if the start was refused.
    epoch: int = 0
    ticks: Ticks = field(default_factory=Ticks)
    notices: list[Progress | Gap] = field(default_factory=list)
    # How it ended: the reason of the status, empty if the reader left.
    end: str = ""
    fork: Fork | None = None


@dataclass(slots=True)
class Subscription:
    """A logical subscription: what one reader was told over all its sessions."""

    name: str
    # Numbers of the instruments that it is for; None for all.
    instruments: frozenset[int] | None
    include_backfill: bool
    sessions: list[Session] = field(default_factory=list)

    def wants(self, batch: Batch, index: int) -> bool:
        """Whether a tick is to be delivered to it."""
        if batch.backfill and not self.include_backfill:
            return False
        return self.instruments is None or batch.instruments[index] in self.instruments


@dataclass(slots=True)
class Answer:
    """One answer about the past of one instrument, at a position that is not known but bounded."""

    replica: int
    instrument: int
    # A batch that was acknowledged before and whose cursor the question named, or 0.
    at_least: int
    # All its trades in the order of history, or None for a statistic.
    ticks: Ticks | None = None
    # Event times of the ticks, nanoseconds.
    times: array[int] = field(default_factory=lambda: array("q"))
    # Of a statistic: how many trades, and the sum of their quantities in hundredths.
    count: int = 0
    volume: int = 0
    # Whether no loss came after it.
    settled: bool = True


@dataclass(slots=True)
class Strike:
    """A fault: when it struck and when it was over, in seconds of the run, and how the load stood."""

    kind: str
    target: str
    struck: float
    over: float
    batches_before: int
    batches_in_flight: int


@dataclass(slots=True)
class History:
    """Everything that one run recorded."""

    form: str
    seed: int
    instrument_count: int = 0
    batches: dict[int, Batch] = field(default_factory=dict)
    subscriptions: list[Subscription] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    # What a stream of each replica tells at the end, from the beginning of the log.
    logs: list[Subscription] = field(default_factory=list)
    # What each replica lists at the end: for each instrument all its trades.
    listings: list[list[Answer]] = field(default_factory=list)
    strikes: list[Strike] = field(default_factory=list)
    # What the load could not get over, if anything: then the run ended early.
    standstill: str = ""
    # For each promotion of a standby the position that it had at least.
    promotions: list[int] = field(default_factory=list)
    # Forks that servers named when they were asked about cursors of batches that the log no longer has.
    probes: list[Fork] = field(default_factory=list)
    # How long each part of the run took.
    seconds: dict[str, float] = field(default_factory=dict)
    # The epoch at the end, and times of the first and last acknowledgement in seconds of the run.
    epoch: int = 0
    first_acknowledgement: float = 0.0
    last_acknowledgement: float = 0.0

    def acknowledged(self) -> int:
        """Count the batches that were acknowledged."""
        return sum(batch.outcome is Outcome.ACKNOWLEDGED for batch in self.batches.values())

    def save(self, path: Path) -> None:
        """Write it, for a later look by the checker."""
        with gzip.open(path, "wb", compresslevel=1) as file:
            pickle.dump(self, file, protocol=pickle.HIGHEST_PROTOCOL)

    @staticmethod
    def load(path: Path) -> History:
        """Read what `save` wrote: only files of one's own, because a pickle may run code."""
        with gzip.open(path, "rb") as file:
            history = pickle.load(file)
        assert isinstance(history, History)
        return history
