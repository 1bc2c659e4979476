"""The checker over histories made by hand: one that is right, and what each defect would leave behind."""

from __future__ import annotations

import copy
from array import array
from pathlib import Path

import pytest
from tapefeed.v1.tick_pb2 import ACTION_CANCEL, ACTION_CORRECT, ACTION_NEW, ORIGIN_LIVE

from check import check
from content import Source, columns, instrument, read_columns, read_row, record_of, rows
from record import (
    Answer,
    Batch,
    Correction,
    Fork,
    Gap,
    History,
    Outcome,
    Progress,
    Session,
    Subscription,
    Ticks,
    batch_name,
    batch_of,
    tick_name,
)

EPOCH = 7
# Producer and number of each batch, in the order of the log; each has three ticks of instruments 0, 1 and 0.
LOG = [(1, 1), (2, 1), (1, 2), (3, 1), (2, 2), (1, 3)]


def sum_of(name: int) -> int:
    """Stand in for the sum over a tick's content."""
    return (name * 2_654_435_761) & 0xFFFFFFFF


def whole(instruments: frozenset[int] | None = None, backfill: bool = True, first: int = 1, last: int = 18) -> Ticks:
    """Make what a right stream or listing has between two positions."""
    ticks = Ticks()
    names = [tick_name(batch_name(*batch), index) for batch in LOG for index in range(3)]
    for log_seq, name in enumerate(names, 1):
        wanted = instruments is None or name % 2 in instruments
        if first <= log_seq <= last and wanted and (backfill or name >> 44 != 3):
            ticks.add(log_seq, name, sum_of(name), 5)
    return ticks


def log_of(replica: int) -> Subscription:
    """Make what a replica tells of the log at the end."""
    return Subscription(f"log of replica {replica}", None, True, [Session(replica, EPOCH, 0, EPOCH, whole())])


def listing(replica: int) -> list[Answer]:
    """Make a right listing: the history of each instrument, in the order of the log."""
    answers = []
    for number in (0, 1):
        ticks = whole(frozenset({number}))
        answers.append(Answer(replica, number, 0, ticks, array("q", [100 + seq for seq in ticks.log_seqs])))
    return answers


def right() -> History:
    """Make a history in which every promise was kept: two replicas, three readers, one batch never acknowledged."""
    history = History("by hand", 0, epoch=EPOCH)
    for producer, number in LOG:
        names = [tick_name(batch_name(producer, number), index) for index in range(3)]
        history.batches[batch_name(producer, number)] = Batch(
            instruments=array("H", [0, 1, 0]),
            contents=array("I", map(sum_of, names)),
            quantities=array("I", [10, 20, 30]),
            backfill=producer == 3,
            outcome=Outcome.UNKNOWN if (producer, number) == (2, 2) else Outcome.ACKNOWLEDGED,
            cursor=b"somewhere",
        )
    fenced = Batch(array("H", [0]), array("I", [1]), array("I", [1]), False, Outcome.FENCED)
    history.batches[batch_name(1, 9)] = fenced
    everything = Subscription("everything", None, True)
    everything.sessions = [
        Session(0, EPOCH, 0, EPOCH, whole(last=8), [Progress(4, 4), Progress(8, 8)], "TRANSPORT"),
        # From a bookmark: three ticks come again.
        Session(1, EPOCH, 5, EPOCH, whole(first=6), [Progress(13, 18)]),
    ]
    live = Subscription("live", None, False, [Session(1, EPOCH, 0, EPOCH, whole(backfill=False), [Progress(9, 12)])])
    some = Subscription("some", frozenset({1}), True)
    some.sessions = [Session(0, EPOCH, 0, EPOCH, whole(frozenset({1})), [Progress(1, 4), Progress(6, 18)])]
    history.subscriptions = [everything, live, some]
    history.logs = [log_of(0), log_of(1)]
    history.listings = [listing(0), listing(1)]
    history.answers = [Answer(1, 1, batch_name(2, 1), count=2, volume=40), listing(0)[0]]
    return history


def without(ticks: Ticks, *log_seqs: int) -> None:
    """Take positions out."""
    kept = [each for each in ticks if each[0] not in log_seqs]
    for column, values in zip((ticks.log_seqs, ticks.names, ticks.sums), zip(*kept, strict=True), strict=True):
        column[:] = array("Q", values)


def logs(history: History) -> list[Session]:
    """Return the streams that told the log at the end."""
    return [session for subscription in history.logs for session in subscription.sessions]


def found(history: History) -> dict[str, int]:
    """Return the counts that are not zero."""
    return {kind: count for kind, count in check(history).counts().items() if count}


def test_a_history_in_which_every_promise_was_kept_has_no_findings() -> None:
    assert found(right()) == {}


def test_a_record_is_the_same_after_it_was_kept(tmp_path: Path) -> None:
    right().save(tmp_path / "record")
    assert History.load(tmp_path / "record") == right()


def test_an_acknowledgement_before_the_commit_is_caught() -> None:
    # The acknowledged batch was never stored, and its position went to nobody.
    history = right()
    lost = Batch(array("H", [0, 1]), array("I", [1, 2]), array("I", [0, 0]), False, Outcome.ACKNOWLEDGED)
    history.batches[batch_name(2, 3)] = lost
    assert found(history) == {"lost": 2 + 2 * 2}


def test_positions_that_become_visible_out_of_order_are_caught() -> None:
    # A reader went past the second batch before it was visible.
    history = right()
    session = history.subscriptions[0].sessions[1]
    without(session.ticks, 10, 11, 12)
    session.notices.clear()
    assert found(history) == {"lost": 3, "gap_without_notice": 3}
    # Or it is told later.
    history = right()
    ticks = history.subscriptions[1].sessions[0].ticks
    for column in (ticks.log_seqs, ticks.names, ticks.sums):
        column[3:9] = column[6:9] + column[3:6]
    assert found(history) == {"lost": 3, "gap_without_notice": 3, "out_of_order": 3}


def test_a_batch_that_is_stored_twice_is_caught() -> None:
    history = right()
    for each in history.listings:
        answer = each[1]
        assert answer.ticks is not None
        answer.ticks.add(19, tick_name(batch_name(1, 3), 1), sum_of(tick_name(batch_name(1, 3), 1)), 5)
        answer.times.append(200)
    for stream in (*logs(history), history.subscriptions[0].sessions[1]):
        stream.ticks.add(19, tick_name(batch_name(1, 3), 1), sum_of(tick_name(batch_name(1, 3), 1)), 5)
    assert found(history)["doubled"] == 1 + 3


def test_a_batch_of_an_older_claim_is_caught() -> None:
    history = right()
    name = tick_name(batch_name(1, 9), 0)
    for each in history.listings:
        ticks = each[0].ticks
        assert ticks is not None
        ticks.add(19, name, 1, 5)
        each[0].times.append(200)
    for stream in (*logs(history), *(history.subscriptions[number].sessions[-1] for number in (0, 1))):
        stream.ticks.add(19, name, 1, 5)
    assert found(history) == {"unfenced": 1 + 2}
    history = right()
    history.batches[batch_name(1, 9)].cursor = b"acknowledged"
    assert found(history) == {"unfenced": 2}


def test_lag_that_is_dropped_silently_is_caught() -> None:
    history = right()
    without(history.subscriptions[1].sessions[0].ticks, 4, 5, 6, 7)
    assert found(history) == {"lost": 4, "gap_without_notice": 4}
    # With a notice it is a loss all the same, but no silent one.
    history.subscriptions[1].sessions[0].notices.insert(0, Gap(3, 4, 7))
    assert found(history) == {"lost": 4}
    # At the beginning of a stream that was resumed.
    history = right()
    without(history.subscriptions[0].sessions[1].ticks, 6, 7)
    assert found(history) == {"lost": 2, "resume_mismatch": 2, "torn": 2}


def forked() -> History:
    """Make a history with a loss: the reader saw positions 19 and 20 of the epoch before, which are gone."""
    history = right()
    history.epoch, history.promotions = 8, [18]
    for session in logs(history):
        session.epoch = session.asked_epoch = 8
    gone = batch_name(3, 2)
    contents = array("I", [sum_of(tick_name(gone, index)) for index in range(2)])
    history.batches[gone] = Batch(array("H", [0, 1]), contents, array("I", [0, 0]), True, Outcome.ACKNOWLEDGED, b"gone")
    history.batches[gone].disowned = True
    history.probes = [Fork(8, EPOCH, 18)]
    session = history.subscriptions[0].sessions[1]
    for index in range(2):
        session.ticks.add(19 + index, tick_name(gone, index), contents[index], 5)
    session.end, session.fork = "EPOCH_CHANGED", Fork(8, EPOCH, 18)
    history.subscriptions[0].sessions.append(Session(0, EPOCH, 18, 8))
    return history


def test_a_loss_that_was_announced_is_none() -> None:
    assert found(forked()) == {}


def test_an_epoch_that_is_ignored_is_caught() -> None:
    # The standby's log has another batch where the lost one was, and nobody was told.
    history = forked()
    history.epoch = EPOCH
    for subscription in (*history.logs, *history.subscriptions):
        for session in subscription.sessions:
            session.epoch, session.end, session.fork = EPOCH, "", None
    history.probes.clear()
    history.batches[batch_name(3, 2)].disowned = False
    assert found(history) == {"lost": 2 + 2 * 2, "disagreement": 2}


def test_an_epoch_without_a_loss_is_caught() -> None:
    history = forked()
    history.promotions = []
    assert found(history) == {"fork_without_loss": 1, "lost": 2 + 2 * 2}
    # A fork that gives up what the standby had.
    history = forked()
    history.promotions = [19]
    assert found(history) == {"fork_without_loss": 1}


def test_views_that_keep_dropped_chunks_are_caught() -> None:
    # During the run an answer has the ticks of a chunk and of the one that replaced it.
    history = right()
    answer = copy.deepcopy(history.listings[0][0])
    assert answer.ticks is not None
    for column in (answer.ticks.log_seqs, answer.ticks.names, answer.ticks.sums, answer.times):
        column.insert(1, column[0])
    history.answers.append(answer)
    history.answers.append(Answer(0, 1, 0, count=8, volume=160))
    assert found(history) == {"doubled": 1, "history_mismatch": 1}


@pytest.mark.parametrize(
    ("position", "kinds"),
    [
        (0, {"invented", "disagreement", "lost"}),
        (2, {"invented", "disagreement", "lost"}),
    ],
)
def test_other_content_than_was_sent_is_caught(position: int, kinds: set[str]) -> None:
    history = right()
    history.subscriptions[2].sessions[0].ticks.sums[position] ^= 1 << 40
    assert set(found(history)) == kinds


def test_replicas_that_disagree_on_what_the_server_adds_are_caught() -> None:
    history = right()
    ticks = history.listings[1][0].ticks
    assert ticks is not None
    ticks.sums[0] ^= 1
    assert found(history) == {"disagreement": 1}


def test_a_torn_batch_is_caught() -> None:
    history = right()
    for stream in logs(history):
        without(stream.ticks, 14)
    for each in (*history.listings[0], *history.listings[1]):
        assert each.ticks is not None
        if 14 in each.ticks.log_seqs:
            without(each.ticks, 14)
            del each.times[-1]
    counts = found(history)
    assert counts["torn"] >= 1
    assert counts["gap_without_notice"] == 1


def test_a_progress_that_lied_is_caught() -> None:
    history = right()
    history.subscriptions[2].sessions[0].notices[0] = Progress(1, 9)
    # It had not come, and came later.
    assert found(history) == {"progress_lied": 2 + 2}


def test_a_position_that_is_refused_wrongly_is_caught() -> None:
    history = right()
    history.subscriptions[0].sessions.insert(1, Session(0, EPOCH, 8, end="CURSOR_EXPIRED"))
    assert found(history) == {"resume_mismatch": 1}
    history = forked()
    history.subscriptions[0].sessions.append(Session(0, EPOCH, 18, end="EPOCH_CHANGED", fork=Fork(8, EPOCH, 18)))
    assert found(history) == {"resume_mismatch": 1}


LATER = batch_name(1, 4)
CORRECTED, CANCELLED = tick_name(batch_name(1, 1), 0), tick_name(batch_name(1, 2), 1)


def later() -> Batch:
    """Make a batch of a trade, a cancel, a correction, and a correction of what was taken back."""
    contents = array("I", [sum_of(tick_name(LATER, index)) for index in range(4)])
    quantities = array("I", [40, 0, 15, 25])
    instruments = array("H", [0, 1, 0, 1])
    batch = Batch(instruments, contents, quantities, False, Outcome.ACKNOWLEDGED, b"later")
    batch.corrections = {1: Correction(CANCELLED, None), 2: Correction(CORRECTED, 77), 3: Correction(CANCELLED, 78)}
    return batch


def corrected() -> History:
    """Make a right history that goes on with these at positions 19 to 22: 1 was corrected, 8 taken back."""
    history = right()
    history.batches[LATER] = later()
    for stream in (*logs(history), *(each.sessions[-1] for each in history.subscriptions)):
        for index, content in enumerate(later().contents):
            if stream is not history.subscriptions[2].sessions[-1] or index % 2 == 1:
                stream.ticks.add(19 + index, tick_name(LATER, index), content, 5)
    for first, second in history.listings:
        assert first.ticks is not None
        first.ticks.sums[0] = 77 << 32 | 5
        first.ticks.add(19, tick_name(LATER, 0), later().contents[0], 5)
        first.times.append(119)
        assert second.ticks is not None
        assert second.ticks.log_seqs[2] == 8
        without(second.ticks, 8)
        del second.times[2]
    return history


def listed(history: History, number: int) -> Ticks:
    """Return what the second replica lists of an instrument."""
    ticks = history.listings[1][number].ticks
    assert ticks is not None
    return ticks


def test_trades_that_were_corrected_and_taken_back_have_no_findings() -> None:
    assert found(corrected()) == {}


@pytest.mark.parametrize("log_seq", [20, 21, 22])
def test_a_lost_correction_is_caught(log_seq: int) -> None:
    # By one reader, between others or at the end.
    history = corrected()
    without(history.subscriptions[1].sessions[0].ticks, log_seq)
    counts = found(history)
    assert counts.pop("gap_without_notice", 1) == 1
    assert counts == {"lost": 1}
    # By a replica's log.
    history = corrected()
    without(history.logs[1].sessions[0].ticks, log_seq)
    counts = found(history)
    assert (counts["lost"], counts["torn"]) == (1, 1)


def test_acknowledged_corrections_that_nobody_stored_are_caught() -> None:
    history = right()
    history.batches[LATER] = later()
    # The trade with them is missing in two listings, too.
    assert found(history) == {"lost": 4 + 2}


def test_a_doubled_correction_is_caught() -> None:
    history = corrected()
    stream = history.subscriptions[2].sessions[0]
    stream.ticks.add(22, tick_name(LATER, 3), later().contents[3], 5)
    assert found(history) == {"doubled": 1}
    # At another position, in the log of all.
    history = corrected()
    for stream in (*logs(history), *(each.sessions[-1] for each in history.subscriptions)):
        stream.ticks.add(23, tick_name(LATER, 3), later().contents[3], 5)
    assert found(history)["doubled"] == 1 + 5


def test_corrections_out_of_order_are_caught() -> None:
    history = corrected()
    ticks = history.subscriptions[1].sessions[0].ticks
    for column in (ticks.log_seqs, ticks.names, ticks.sums):
        column[-2:] = column[:-3:-1]
    assert found(history) == {"out_of_order": 1, "gap_without_notice": 1, "lost": 1}


def test_a_correction_that_is_missing_after_a_resume_is_caught() -> None:
    history = corrected()
    resumed = Session(1, EPOCH, 19, EPOCH)
    ticks = history.subscriptions[1].sessions[0].ticks
    for log_seq, name, content in list(ticks)[-2:]:
        resumed.ticks.add(log_seq, name, content >> 32, 5)
    without(ticks, 20, 21, 22)
    history.subscriptions[1].sessions.append(resumed)
    assert found(history) == {"resume_mismatch": 1, "lost": 1}


def test_a_correction_with_other_content_is_caught() -> None:
    history = corrected()
    history.subscriptions[1].sessions[0].ticks.sums[-1] ^= 1 << 40
    assert found(history) == {"invented": 1, "disagreement": 1, "lost": 1}
    # As a trade.
    history = corrected()
    history.subscriptions[1].sessions[0].ticks.names[-1] = CANCELLED
    assert found(history) == {"invented": 1, "disagreement": 1, "doubled": 1, "lost": 1}


def test_a_correction_that_is_not_applied_is_caught() -> None:
    history = corrected()
    listed(history, 0).sums[0] = sum_of(CORRECTED) << 32 | 5
    assert found(history) == {"history_mismatch": 1}
    # What was taken back is still there.
    history = corrected()
    history.listings[1][1] = listing(1)[1]
    assert found(history) == {"history_mismatch": 1}


def test_a_correction_that_is_applied_wrongly_is_caught() -> None:
    # To another trade.
    history = corrected()
    listed(history, 0).sums[1] = 77 << 32 | 5
    assert found(history) == {"invented": 1, "disagreement": 1}
    # With other values.
    history = corrected()
    listed(history, 0).sums[0] = 76 << 32 | 5
    assert found(history) == {"invented": 1, "disagreement": 1}
    # To what the server adds.
    history = corrected()
    listed(history, 0).sums[0] ^= 1
    assert found(history) == {"disagreement": 1}
    # After the trade was taken back.
    history = corrected()
    history.listings[1][1] = listing(1)[1]
    listed(history, 1).sums[2] = 78 << 32 | 5
    assert found(history) == {"disagreement": 1}
    # A cancel of another trade.
    history = corrected()
    without(listed(history, 1), 17)
    del history.listings[1][1].times[-1]
    assert found(history) == {"history_mismatch": 1, "lost": 1}
    # As a trade of its own.
    history = corrected()
    listed(history, 0).add(21, tick_name(LATER, 2), later().contents[2], 5)
    history.listings[1][0].times.append(200)
    assert found(history) == {"invented": 1, "disagreement": 1}


def test_answers_are_held_against_trades_as_they_were() -> None:
    # Before the correction, and behind it; a question behind the batch needs both.
    before, after = listing(0)[0], corrected().listings[0][0]
    for answer, at_least, kinds in [
        (before, 0, {}),
        (before, LATER, {"history_mismatch": 2}),
        (after, 0, {}),
        (after, LATER, {}),
    ]:
        history = corrected()
        answer.at_least = at_least
        history.answers = [answer]
        assert found(history) == kinds
    # It has the correction, and not the trade that came before it.
    assert after.ticks is not None
    without(after.ticks, 19)
    del after.times[-1]
    history = corrected()
    history.answers = [after]
    assert found(history) == {"history_mismatch": 1}


@pytest.mark.parametrize(
    ("instrument_number", "count", "volume", "at_least", "is_right"),
    [
        (1, 6, 120, 0, True),
        (1, 5, 100, 0, True),
        (1, 5, 100, LATER, True),
        (1, 6, 120, LATER, False),
        (1, 6, 125, 0, False),
        (0, 13, 280, 0, True),
        (0, 13, 285, LATER, True),
        (0, 13, 280, LATER, False),
        (0, 12, 245, 0, False),
    ],
)
def test_statistics_are_held_against_trades_as_they_were(
    instrument_number: int, count: int, volume: int, at_least: int, is_right: bool
) -> None:
    history = corrected()
    history.answers = [Answer(0, instrument_number, at_least, count=count, volume=volume)]
    assert found(history) == ({} if is_right else {"history_mismatch": 1})


def test_answers_may_have_corrections_that_a_fork_gave_up() -> None:
    for settled, kinds in [(False, {}), (True, {"disagreement": 1})]:
        history = forked()
        given_up = history.batches[batch_name(3, 2)]
        given_up.corrections[0] = Correction(CORRECTED, 77)
        answer = listing(0)[0]
        assert answer.ticks is not None
        answer.ticks.sums[0] = 77 << 32 | 5
        answer.settled = settled
        history.answers = [answer]
        assert found(history) == kinds


def test_what_is_read_is_what_was_made() -> None:
    source = Source(seed=5, start=1_723_204_800_000_000_000, producer=2)
    actions: set[int] = set()
    trades: dict[int, tuple[int, int]] = {}
    for _ in range(60):
        name, made = source.batch()
        batch = record_of(made, backfill=False)
        for index, tick in enumerate(made):
            actions.add(tick.action)
            if index not in batch.corrections:
                assert tick.trade == tick.name
                trades[tick.name] = (tick.instrument, tick.time)
            # What it is about was made before.
            assert trades[tick.trade] == (tick.instrument, tick.time)
        as_rows, as_columns = Ticks(), Ticks()
        for log_seq, row in enumerate(rows(made).ticks, 1):
            # What the server adds.
            row.log_seq, row.origin, row.action = log_seq, ORIGIN_LIVE, row.action or ACTION_NEW
            read_row(row, as_rows)
        message = columns(made)
        message.log_seq_delta.extend([1] * len(made))
        message.receive_time_unix_nano_delta[:] = message.receive_time_unix_nano_delta or [0] * len(made)
        numbers = list(dict.fromkeys(tick.instrument for tick in made))
        for number, entry in zip(numbers, message.instruments, strict=True):
            entry.instrument_id = number
        read_columns(message, instrument, as_columns)
        names = array("Q", [tick_name(name, index) for index in range(len(made))])
        for ticks in (as_rows, as_columns):
            assert ticks.names == names
            assert [content >> 32 for content in ticks.sums] == list(batch.contents)
    assert actions == {ACTION_NEW, ACTION_CORRECT, ACTION_CANCEL}


def test_names_of_ticks_hold_their_parts() -> None:
    name = tick_name(batch_name(3, 70_000), 3_500)
    assert batch_of(name) == batch_name(3, 70_000)
