"""Judges what one subscription was told, over all its sessions, against the log."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from itertools import chain

from findings import Findings
from log import Log
from record import Gap, Progress, Session, Subscription, batch_of, spelled

# Reasons of an end that say nothing about a position.
HARMLESS = {"", "TRANSPORT", "STORE_UNAVAILABLE", "SHUTTING_DOWN", "SLOW_CONSUMER", "STREAM_EXPIRED", "QUIET"}


class Stream:
    """A subscription as it is read: what it has delivered, and what comes next."""

    def __init__(self, subscription: Subscription, log: Log, findings: Findings) -> None:
        self.subscription = subscription
        self.log = log
        self.findings = findings
        self.expected = log.expected(subscription)
        self.delivered = bytearray(log.end + 1)
        self.names: set[int] = set()
        # What was delivered of a part of the log that was given up: tick by position.
        self.orphans: dict[int, int] = {}
        self.top = 0

    def check(self) -> None:
        """Read all sessions, then look at what is missing."""
        for session in self.subscription.sessions:
            if session.epoch == 0:
                self._check_refusal(session, session.asked)
                continue
            self._begin_again(session)
            last = self._read(session)
            self._check_refusal(session, last)
        self._check_end()

    def _where(self, session: Session, log_seq: int) -> str:
        return f"{self.subscription.name} on replica {session.replica}, after {session.asked}, at {log_seq}"

    def _check_refusal(self, session: Session, position: int) -> None:
        """Judge the end of a session: whether the position that it had reached was refused rightly."""
        if session.end in HARMLESS:
            return
        fork, reached = session.fork, session.epoch or session.asked_epoch
        if session.end == "EPOCH_CHANGED" and fork is not None and (fork.parent != reached or position > fork.log_seq):
            return
        self.findings.note("resume_mismatch", f"{self._where(session, position)}: {session.end} {fork}")

    def _begin_again(self, session: Session) -> None:
        """Forget what lies behind the position that the reader asked for: it asked to be told that again."""
        asked = min(session.asked, self.log.end)
        for log_seq in self.expected[bisect_right(self.expected, asked) :]:
            if log_seq > self.top:
                break
            if self.delivered[log_seq]:
                self.delivered[log_seq] = 0
                self.names.discard(self.log.names[log_seq])
        self.top = min(self.top, asked)
        for log_seq in [each for each in self.orphans if each > session.asked or session.epoch != session.asked_epoch]:
            self.names.discard(self.orphans.pop(log_seq))

    def _read(self, session: Session) -> int:
        """Read one session, and return the last position that it reached."""
        note = self.findings.note
        shared = self.log.shared(session.epoch)
        place = bisect_right(self.expected, session.asked)
        last, complete, fresh = session.asked, 0, True
        gaps: list[Gap] = []
        notices = iter(chain(session.notices, [None]))
        notice = next(notices)
        for count, (log_seq, name, content) in enumerate(chain(session.ticks, [(0, 0, 0)])):
            while notice is not None and notice.after <= count:
                if isinstance(notice, Gap):
                    gaps.append(notice)
                else:
                    place = self._check_progress(session, notice, place, min(notice.log_seq, shared), gaps)
                    complete = max(complete, notice.log_seq)
                notice = next(notices)
            if log_seq == 0:
                break
            if log_seq <= complete:
                note("progress_lied", f"{self._where(session, log_seq)}: Progress had said {complete}")
            if log_seq <= last:
                kind = "doubled" if name in self.names else "out_of_order"
                note(kind, f"{self._where(session, log_seq)}: {spelled(name)} after {last}")
                continue
            last = log_seq
            if name in self.names:
                note("doubled", f"{self._where(session, log_seq)}: {spelled(name)} came before")
            self.names.add(name)
            if log_seq > shared:
                self._check_given_up(session, log_seq, name, content)
                fresh = False
                continue
            if place < len(self.expected) and self.expected[place] == log_seq:
                place += 1
            elif log_seq > complete:
                found = bisect_left(self.expected, log_seq, place)
                missing = [each for each in self.expected[place:found] if not _announced(gaps, each)]
                kind = "resume_mismatch" if fresh else "gap_without_notice"
                note(kind, f"{self._where(session, log_seq)}: {missing[:3]} never came", len(missing))
                place = found
                if place < len(self.expected) and self.expected[place] == log_seq:
                    place += 1
                elif log_seq <= self.log.end and self.log.names[log_seq] == name:
                    note("disagreement", f"{self._where(session, log_seq)}: {spelled(name)} was not asked for")
            fresh = False
            self._check_tick(session, log_seq, name, content)
            self.top = max(self.top, log_seq)
        return max(last, complete)

    def _check_progress(self, session: Session, progress: Progress, place: int, reach: int, gaps: list[Gap]) -> int:
        """Judge the claim that everything up to here has been delivered."""
        found = bisect_right(self.expected, reach, min(place, len(self.expected)))
        missing = [each for each in self.expected[place:found] if not _announced(gaps, each)]
        where = self._where(session, progress.log_seq)
        self.findings.note("progress_lied", f"{where}: {missing[:3]} had not come", len(missing))
        return max(place, found)

    def _check_tick(self, session: Session, log_seq: int, name: int, content: int) -> None:
        known = log_seq <= self.log.end and self.log.names[log_seq] == name and self.log.sums[log_seq] == content
        if known:
            self.delivered[log_seq] = 1
            return
        if self.log.is_invented(name, content):
            self.findings.note("invented", f"{self._where(session, log_seq)}: {spelled(name)}")
        self.findings.note("disagreement", f"{self._where(session, log_seq)}: {spelled(name)} is not in the log")

    def _check_given_up(self, session: Session, log_seq: int, name: int, content: int) -> None:
        """Judge a tick of a part of the log that a fork gave up: all who saw it saw the same."""
        self.orphans[log_seq] = name
        if self.log.is_invented(name, content):
            self.findings.note("invented", f"{self._where(session, log_seq)}: {spelled(name)}")
        if self.log.given_up.setdefault((session.epoch, log_seq), (name, content)) != (name, content):
            self.findings.note("disagreement", f"{self._where(session, log_seq)}: {spelled(name)} before the fork")

    def _check_end(self) -> None:
        name = self.subscription.name
        never = [each for each in self.expected if not self.delivered[each]]
        lost = [each for each in never if self.log.is_acknowledged(self.log.names[each])]
        self.findings.note("lost", f"{name} never had {lost[:3]}", len(lost))
        for orphan in self.orphans.values():
            self.names.discard(orphan)
        if self.subscription.instruments is None and self.subscription.include_backfill:
            for batch, count in Counter(map(batch_of, self.names)).items():
                whole = self.log.history.batches.get(batch)
                if whole is not None and count != len(whole):
                    self.findings.note("torn", f"{name} has {count} of {len(whole)} ticks of {spelled(batch << 12)}")


def _announced(gaps: list[Gap], log_seq: int) -> bool:
    return any(gap.first <= log_seq <= gap.last for gap in gaps)
