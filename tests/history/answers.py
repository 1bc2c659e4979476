"""Judges answers about the past against the log: each must be an instrument's trades at some position.

What a trade says at a position follows from the ticks up to there that are about it: a cancel takes it back for good,
else the last correction counts.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections import defaultdict
from dataclasses import dataclass, field
from itertools import accumulate, pairwise

from findings import Findings
from log import Log
from record import Answer, Correction, Outcome, batch_of, spelled


@dataclass(slots=True)
class Version:
    """What a trade says from a position on."""

    since: int
    # The sum over it; None: it was taken back.
    content: int | None
    # In hundredths.
    quantity: int


@dataclass(slots=True)
class Instrument:
    """What the log has of an instrument."""

    # Positions of its trades.
    trades: array[int] = field(default_factory=lambda: array("Q"))
    # What its history becomes by each tick: position, and by how much the count and the sum of quantities grow.
    changes: list[tuple[int, int, int]] = field(default_factory=list)
    # The positions of the changes; behind each, and before all, the count and the sum of quantities.
    positions: array[int] = field(default_factory=lambda: array("Q"))
    counts: array[int] = field(default_factory=lambda: array("q", [0]))
    volumes: list[int] = field(default_factory=lambda: [0])

    def add_up(self) -> None:
        """Add the changes up."""
        self.changes.sort()
        self.positions = array("Q", [position for position, _, _ in self.changes])
        self.counts = array("q", accumulate((count for _, count, _ in self.changes), initial=0))
        self.volumes = list(accumulate((volume for _, _, volume in self.changes), initial=0))
        self.changes.clear()


class Past:
    """What each instrument's history holds."""

    def __init__(self, log: Log, findings: Findings) -> None:
        self.log = log
        self.findings = findings
        self.instruments: defaultdict[int, Instrument] = defaultdict(Instrument)
        self.last_of: dict[int, int] = {}
        # By the position of the trade, what it says first and later, where anything is said of it later.
        self.versions: dict[int, list[Version]] = {}
        # Names of trades that were taken back.
        self.taken_back: set[int] = set()
        # Behind the first fork an answer may be of the part that was given up.
        self.certain = min((log.shared(fork.parent) for fork in log.forks.values()), default=log.end)
        self._read_log()
        # By the name of its trade, what was said and may have been given up.
        self.given_up: defaultdict[int, list[Correction]] = defaultdict(list)
        if log.forks:
            kept = set(log.names)
            for key, batch in log.history.batches.items():
                for index, correction in batch.corrections.items():
                    if key << 12 | index not in kept:
                        self.given_up[correction.trade].append(correction)
        # By the name of its trade, the sums over what it was ever said to say.
        self.corrected: defaultdict[int, set[int]] = defaultdict(set)
        for batch in log.history.batches.values():
            for correction in batch.corrections.values():
                if correction.content is not None:
                    self.corrected[correction.trade].add(correction.content)

    def _read_log(self) -> None:
        batches = self.log.history.batches
        said: defaultdict[int, list[Version]] = defaultdict(list)
        for log_seq, name in enumerate(self.log.names):
            batch, index = batches.get(batch_of(name)) if name else None, name & 0xFFF
            if batch is None or index >= len(batch):
                continue
            self.last_of[batch_of(name)] = log_seq
            correction = batch.corrections.get(index)
            if correction is None:
                self.instruments[batch.instruments[index]].trades.append(log_seq)
            else:
                said[correction.trade].append(Version(log_seq, correction.content, batch.quantities[index]))
        for instrument in self.instruments.values():
            for log_seq in instrument.trades:
                name = self.log.names[log_seq]
                batch, index = batches[batch_of(name)], name & 0xFFF
                now = Version(log_seq, batch.contents[index], batch.quantities[index])
                instrument.changes.append((log_seq, 1, now.quantity))
                if name not in said:
                    continue
                versions = self.versions[log_seq] = [now]
                for said_later in said[name]:
                    then = Version(max(log_seq, said_later.since), said_later.content, said_later.quantity)
                    versions.append(then)
                    instrument.changes.append((then.since, -(then.content is None), then.quantity - now.quantity))
                    if then.content is None:
                        self.taken_back.add(name)
                        break
                    now = then
            instrument.add_up()

    def check(self, answer: Answer) -> None:
        """Judge one answer that was given during the run."""
        if answer.ticks is None:
            self._check_statistic(answer)
            return
        self._check_order(answer)
        reach = max(max(answer.ticks.log_seqs, default=0), self.last_of.get(answer.at_least, 0))
        self._check_ticks(answer, reach)

    def check_listing(self, replica: int, listing: list[Answer]) -> None:
        """Judge what a replica lists at the end: every trade as it was corrected, and none that was taken back."""
        had: set[int] = set()
        for answer in listing:
            assert answer.ticks is not None
            self._check_order(answer)
            self._check_ticks(answer, self.log.end)
            had.update(answer.ticks.names)
            for log_seq, name, content in answer.ticks:
                if self._is_invented(name, content):
                    self.findings.note("invented", f"replica {replica} lists {spelled(name)} at {log_seq}")
        history = self.log.history
        for key, batch in history.batches.items():
            first = key << 12
            trades = [first | index for index in range(len(batch)) if index not in batch.corrections]
            listed = sum(name in had for name in trades)
            missing = sum(name not in had and name not in self.taken_back for name in trades)
            if batch.outcome is Outcome.ACKNOWLEDGED and not (batch.disowned and self.log.is_forked_rightly):
                self.findings.note("lost", f"replica {replica} does not list {spelled(first)}", missing)
            if batch.outcome is Outcome.FENCED and (listed or batch.cursor):
                self.findings.note("unfenced", f"replica {replica} lists {spelled(first)}")

    def _where(self, answer: Answer) -> str:
        return f"instrument {answer.instrument} on replica {answer.replica}"

    def _check_order(self, answer: Answer) -> None:
        assert answer.ticks is not None
        keys = list(zip(answer.times, answer.ticks.log_seqs, strict=True))
        for before, after in pairwise(keys):
            if before == after:
                self.findings.note("doubled", f"{self._where(answer)}: position {after[1]}")
            elif before > after:
                self.findings.note("out_of_order", f"{self._where(answer)}: {after} after {before}")

    def _is_invented(self, name: int, content: int) -> bool:
        """Whether nobody sent this trade, nor a correction by which it says this."""
        if self.log.correction(name) is not None:
            return True
        return self.log.is_invented(name, content) and content >> 32 not in self.corrected.get(name, ())

    def _version(self, log_seq: int, name: int, content: int) -> int | None:
        """Return which of its versions a listed trade is, counted from 0; None if it is none of them."""
        log = self.log
        if log_seq > log.end or log.names[log_seq] != name or log.correction(name) is not None:
            return None
        # What the server adds stays.
        if (content ^ log.sums[log_seq]) & 0xFFFFFFFF:
            return None
        versions = self.versions.get(log_seq)
        if versions is None:
            return 0 if log.sums[log_seq] == content else None
        return next((at for at, each in enumerate(versions) if each.content == content >> 32), None)

    def _is_given_up(self, answer: Answer, log_seq: int, name: int, content: int) -> bool:
        """Whether a listed trade may be of a part of the log that a fork gave up."""
        if answer.settled or self._is_invented(name, content):
            return False
        return log_seq > self.certain or any(each.content == content >> 32 for each in self.given_up.get(name, ()))

    def _check_ticks(self, answer: Answer, reach: int) -> None:
        """Judge that an answer has exactly the instrument's trades at a position, from `reach` on.

        What it has says which position it is at least: the least that fits is looked for, and judged.
        """
        assert answer.ticks is not None
        log, where, end = self.log, self._where(answer), self.log.end
        # Of each listed trade that was corrected, which of its versions it is.
        listed: dict[int, int] = {}
        had = set(answer.ticks.log_seqs)
        for log_seq, name, content in answer.ticks:
            version = self._version(log_seq, name, content)
            if version is not None:
                if log_seq in self.versions:
                    listed[log_seq] = version
                    reach = max(reach, self.versions[log_seq][version].since)
            elif self._is_given_up(answer, log_seq, name, content):
                # The log that this was read from is no more from here on.
                end = self.certain
            else:
                self.findings.note("disagreement", f"{where}: {spelled(name)} at {log_seq}")
        reach = min(reach, end)
        missing = []
        for log_seq in self._trades(answer.instrument):
            if log_seq > reach:
                break
            if log_seq in had:
                continue
            name, versions = log.names[log_seq], self.versions.get(log_seq)
            if versions is not None and versions[-1].content is None and versions[-1].since <= end:
                reach = max(reach, versions[-1].since)
            elif answer.settled or all(each.content is not None for each in self.given_up.get(name, ())):
                missing.append(log_seq)
        self.findings.note("history_mismatch", f"{where}: {missing[:3]} are missing", len(missing))
        for log_seq, version in listed.items():
            following = self.versions[log_seq][version + 1 :]
            if following and following[0].since <= reach:
                what = "taken back" if following[0].content is None else "corrected"
                told = f"{where}: {spelled(log.names[log_seq])} is not {what} at {following[0].since}"
                self.findings.note("history_mismatch", told)

    def _trades(self, instrument: int) -> array[int]:
        known = self.instruments.get(instrument)
        return array("Q") if known is None else known.trades

    def _check_statistic(self, answer: Answer) -> None:
        """Judge that a statistic is that of the instrument's trades at some position."""
        known = self.instruments.get(answer.instrument, Instrument())
        least = bisect_right(known.positions, self.last_of.get(answer.at_least, 0))
        if not answer.settled and self.log.forks:
            # It may count trades that were lost since, and miss those that a lost cancel took back.
            certain = known.counts[bisect_right(known.positions, self.certain)]
            cancelled = sum(
                each.content is None and self._instrument_of(name) == answer.instrument
                for name, said in self.given_up.items()
                for each in said
            )
            if answer.count > certain - cancelled:
                return
        if not _stands(known, least, answer.count, answer.volume):
            told = f"{answer.count} trades and {answer.volume}, at least {known.counts[least]} trades"
            self.findings.note("history_mismatch", f"{self._where(answer)}: {told}")

    def _instrument_of(self, name: int) -> int | None:
        batch = self.log.history.batches.get(batch_of(name))
        return None if batch is None else batch.instruments[name & 0xFFF]


def _stands(known: Instrument, least: int, count: int, volume: int) -> bool:
    """Whether an instrument has this count and volume after so many changes at least."""
    at = least
    while True:
        try:
            at = known.counts.index(count, at)
        except ValueError:
            return False
        if known.volumes[at] == volume:
            return True
        at += 1
