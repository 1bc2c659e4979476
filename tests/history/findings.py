"""What can be wrong with a run, counted. All zero is right."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

# Examples of each kind that are kept.
EXAMPLES = 5


@dataclass(slots=True)
class Findings:
    """Counts of what broke a promise, with a few examples of each."""

    # Acknowledged ticks that a reader, or a replica's history, does not have: counted for each of them. Ticks that an
    # announced fork of the epoch gave up, after the loss of a standby's tail, are not.
    lost: int = 0
    # Ticks that nobody sent, or with another content than they were sent with.
    invented: int = 0
    # Ticks that came again: the same position, or the same tick at another one.
    doubled: int = 0
    # Batches of which some ticks are there and others are not, or that do not stand together in their order.
    torn: int = 0
    # Ticks that came below one that came before.
    out_of_order: int = 0
    # Positions that a stream passed over, or that no log has, without a word.
    gap_without_notice: int = 0
    # Positions by which a stream, resumed, does not begin where it was asked to, and resumes that were refused wrongly.
    resume_mismatch: int = 0
    # Positions at which a reader has another tick than the log of the first replica, or a trade that does not follow.
    disagreement: int = 0
    # Positions that a Progress claimed to be delivered, and that were not or came later.
    progress_lied: int = 0
    # Answers that are not the trades of an instrument up to some position, as corrected up to there: counted for each
    # trade that is missing, or is as it was before.
    history_mismatch: int = 0
    # Batches that were stored, or acknowledged, under a claim that a newer one had ended.
    unfenced: int = 0
    # Epochs without a loss, and forks that give up more than was lost.
    fork_without_loss: int = 0

    examples: dict[str, list[str]] = field(default_factory=dict)

    def note(self, kind: str, example: str, count: int = 1) -> None:
        """Count what was found."""
        if count == 0:
            return
        setattr(self, kind, getattr(self, kind) + count)
        kept = self.examples.setdefault(kind, [])
        if len(kept) < EXAMPLES:
            kept.append(example)

    def counts(self) -> dict[str, int]:
        """Return the counts by their names."""
        return {each.name: getattr(self, each.name) for each in fields(self) if each.name != "examples"}

    def none(self) -> bool:
        """Whether nothing was found."""
        return not any(self.counts().values())
