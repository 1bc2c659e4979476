"""The log of a run as the checker knows it: what the first replica tells of it at the end."""

from __future__ import annotations

from array import array
from collections.abc import Iterable

from findings import Findings
from record import Correction, Fork, History, Outcome, Subscription, batch_of, spelled

# What stands in for the end of an epoch that goes on.
NO_END = (1 << 64) - 1


def forks_of(history: History) -> dict[int, Fork]:
    """Find every fork that any server named, by its epoch; of several words about one, the one that shares least."""
    forks: dict[int, Fork] = {}
    named = [session.fork for subscription in history.subscriptions for session in subscription.sessions]
    for fork in (*named, *history.probes):
        if fork is not None and fork.log_seq <= forks.get(fork.epoch, fork).log_seq:
            forks[fork.epoch] = fork
    return forks


class Log:
    """Which tick stands at which position. Position 0 is none."""

    def __init__(self, history: History) -> None:
        self.history = history
        self.forks = forks_of(history)
        told_at_last = [session.ticks for session in history.logs[0].sessions] if history.logs else []
        end = max((log_seq for ticks in told_at_last for log_seq in ticks.log_seqs), default=0)
        self.names = array("Q", bytes(8 * (end + 1)))
        self.sums = array("Q", bytes(8 * (end + 1)))
        for ticks in told_at_last:
            for log_seq, name, content in ticks:
                self.names[log_seq] = name
                self.sums[log_seq] = content
        # Every epoch that anybody was told of.
        told = {session.epoch for each in history.subscriptions for session in each.sessions}
        self.epochs = (told | {history.epoch, *self.forks}) - {0}
        # What was seen of an epoch behind its fork: by epoch and position.
        self.given_up: dict[tuple[int, int], tuple[int, int]] = {}
        self._expected: dict[tuple[frozenset[int] | None, bool], array[int]] = {}

    @property
    def end(self) -> int:
        """The last position."""
        return len(self.names) - 1

    @property
    def is_forked_rightly(self) -> bool:
        """Whether a fork was named, and there are no more epochs than losses: only then what it gave up is excused."""
        return bool(self.forks) and len(self.epochs) <= 1 + len(self.history.promotions)

    def shared(self, epoch: int) -> int:
        """Return the last position of an epoch that is in the log, too."""
        reach = NO_END
        while epoch != self.history.epoch:
            child = next((fork for fork in self.forks.values() if fork.parent == epoch), None)
            if child is None:
                break
            reach, epoch = min(reach, child.log_seq), child.epoch
        return reach

    def is_invented(self, name: int, content: int) -> bool:
        """Whether nobody sent this tick."""
        batch = self.history.batches.get(batch_of(name))
        index = name & 0xFFF
        return batch is None or index >= len(batch) or batch.contents[index] != content >> 32

    def correction(self, name: int) -> Correction | None:
        """Return what the tick says about a trade; None if it is one, or nobody sent it."""
        batch = self.history.batches.get(batch_of(name))
        return None if batch is None else batch.corrections.get(name & 0xFFF)

    def is_acknowledged(self, name: int) -> bool:
        """Whether the tick's batch was acknowledged."""
        batch = self.history.batches.get(batch_of(name))
        return batch is not None and batch.outcome is Outcome.ACKNOWLEDGED

    def expected(self, subscription: Subscription) -> array[int]:
        """Return the positions that a subscription is to be told, ascending."""
        key = (subscription.instruments, subscription.include_backfill)
        known = self._expected.get(key)
        if known is None:
            known = self._expected[key] = array("Q", self._wanted(subscription))
        return known

    def _wanted(self, subscription: Subscription) -> Iterable[int]:
        for log_seq, name in enumerate(self.names):
            batch = self.history.batches.get(batch_of(name)) if name else None
            if batch is not None and name & 0xFFF < len(batch) and subscription.wants(batch, name & 0xFFF):
                yield log_seq

    def check_epochs(self, findings: Findings) -> None:
        """Judge the forks: one for each loss, and none that gives up what the standby had."""
        unexplained = len(self.epochs) - 1 - len(self.history.promotions)
        findings.note("fork_without_loss", f"epochs {sorted(self.epochs)}", max(0, unexplained))
        for fork, kept in zip(self.forks.values(), self.history.promotions, strict=False):
            if fork.log_seq < kept:
                findings.note("fork_without_loss", f"{fork} of a standby that had {kept}")

    def check_batches(self, findings: Findings) -> None:
        """Judge that batches stand in the log as a whole, together, and once, and that nothing is missing in it.

        What was acknowledged must be there, what was sent under an older claim must not.
        """
        seen: set[int] = set()
        holes = [log_seq for log_seq in range(1, len(self.names)) if not self.names[log_seq]]
        findings.note("gap_without_notice", f"no log has {holes[:3]}", len(holes))
        log_seq = 1
        while log_seq < len(self.names):
            name = self.names[log_seq]
            batch = self.history.batches.get(batch_of(name))
            if batch is None:
                log_seq += 1
                continue
            run = 0
            while log_seq + run < len(self.names) and self.names[log_seq + run] == name + run and run < len(batch):
                run += 1
            whole = name & 0xFFF == 0 and run == len(batch)
            if not whole:
                findings.note("torn", f"{spelled(name)} at {log_seq}: {run} of {len(batch)} ticks")
            again = sum(each in seen for each in range(name, name + max(run, 1)))
            findings.note("doubled", f"{spelled(name)} is in the log again at {log_seq}", again)
            seen.update(range(name, name + max(run, 1)))
            log_seq += max(run, 1)
        for key, batch in self.history.batches.items():
            first = key << 12
            missing = sum(name not in seen for name in range(first, first + len(batch)))
            if batch.outcome is Outcome.ACKNOWLEDGED and not (batch.disowned and self.is_forked_rightly):
                findings.note("lost", f"the log does not have {spelled(first)}", missing)
            if batch.outcome is Outcome.FENCED and missing < len(batch):
                findings.note("unfenced", f"the log has {spelled(first)}")
