"""Judges answers about the past against the log: each must be an instrument's log up to some position."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from itertools import accumulate, pairwise

from findings import Findings
from log import Log
from record import Answer, Outcome, batch_of, spelled


class Past:
    """What each instrument's history holds, in the order of the log."""

    def __init__(self, log: Log, findings: Findings) -> None:
        self.log = log
        self.findings = findings
        self.log_seqs: dict[int, array[int]] = {}
        self.volumes: dict[int, list[int]] = {}
        self.last_of: dict[int, int] = {}
        quantities: dict[int, list[int]] = {}
        for log_seq, name in enumerate(log.names):
            batch = log.history.batches.get(batch_of(name)) if name else None
            if batch is None or name & 0xFFF >= len(batch):
                continue
            number = batch.instruments[name & 0xFFF]
            self.log_seqs.setdefault(number, array("Q")).append(log_seq)
            quantities.setdefault(number, []).append(batch.quantities[name & 0xFFF])
            self.last_of[batch_of(name)] = log_seq
        for number, each in quantities.items():
            self.volumes[number] = list(accumulate(each, initial=0))
        # Behind the first fork an answer may be of the part that was given up.
        self.certain = min((log.shared(fork.parent) for fork in log.forks.values()), default=log.end)

    def check(self, answer: Answer) -> None:
        """Judge one answer that was given during the run."""
        if answer.ticks is None:
            self._check_statistic(answer)
            return
        self._check_order(answer)
        reach = max(max(answer.ticks.log_seqs, default=0), self.last_of.get(answer.at_least, 0))
        self._check_ticks(answer, reach)

    def check_listing(self, replica: int, listing: list[Answer]) -> None:
        """Judge what a replica lists at the end: everything, and what the others list."""
        had: set[int] = set()
        for answer in listing:
            assert answer.ticks is not None
            self._check_order(answer)
            self._check_ticks(answer, self.log.end)
            had.update(answer.ticks.names)
            for log_seq, name, content in answer.ticks:
                if self.log.is_invented(name, content):
                    self.findings.note("invented", f"replica {replica} lists {spelled(name)} at {log_seq}")
        history = self.log.history
        for key, batch in history.batches.items():
            first = key << 12
            missing = sum(tick not in had for tick in range(first, first + len(batch)))
            if batch.outcome is Outcome.ACKNOWLEDGED and not (batch.disowned and self.log.is_forked_rightly):
                self.findings.note("lost", f"replica {replica} does not list {spelled(first)}", missing)
            if batch.outcome is Outcome.FENCED and (missing < len(batch) or batch.cursor):
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

    def _check_ticks(self, answer: Answer, reach: int) -> None:
        """Judge that an answer has exactly the instrument's ticks up to a position."""
        assert answer.ticks is not None
        log, where = self.log, self._where(answer)
        had = set(answer.ticks.log_seqs)
        for log_seq, name, content in answer.ticks:
            if log_seq <= log.end and log.names[log_seq] == name and log.sums[log_seq] == content:
                continue
            if log_seq > self.certain and not log.is_invented(name, content):
                # The log that this was read from is no more from here on.
                reach = min(reach, self.certain)
                continue
            self.findings.note("disagreement", f"{where}: {spelled(name)} at {log_seq}")
        wanted = self.log_seqs.get(answer.instrument, array("Q"))
        missing = [each for each in wanted[: bisect_right(wanted, reach)] if each not in had]
        self.findings.note("history_mismatch", f"{where}: {missing[:3]} are missing", len(missing))

    def _check_statistic(self, answer: Answer) -> None:
        """Judge that a statistic is that of the instrument's ticks up to a position."""
        volumes = self.volumes.get(answer.instrument, [0])
        wanted = self.log_seqs.get(answer.instrument, array("Q"))
        least = bisect_right(wanted, self.last_of.get(answer.at_least, 0))
        if not answer.settled and answer.count > bisect_right(wanted, self.certain):
            # It may count ticks that were lost since.
            return
        if not (least <= answer.count < len(volumes) and volumes[answer.count] == answer.volume):
            told = f"{answer.count} ticks and {answer.volume}, at least {least} ticks"
            self.findings.note("history_mismatch", f"{self._where(answer)}: {told}")
