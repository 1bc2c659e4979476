"""Runs a form against real servers, checks what was recorded, and reports."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import reader
from check import check
from cluster import REPLICAS, REPOSITORY, Cluster
from content import FIRST_INSTRUMENTS
from findings import Findings
from forms import FORMS, Form
from nemesis import Nemesis
from producer import Producer
from record import History, Outcome, Subscription
from subscriber import Habit, Subscriber
from world import World

# How long readers may take to reach the end of the log when nothing disturbs them any more, in seconds.
CATCH_UP = 90.0


def subscribers(world: World) -> list[Subscriber]:
    """Make the subscribers: four at each replica."""
    choose = world.choose("subscribers")
    made = []

    def subscribe(name: str, instruments: frozenset[int] | None, include_backfill: bool, habit: Habit) -> None:
        subscription = Subscription(name, instruments, include_backfill)
        world.history.subscriptions.append(subscription)
        made.append(Subscriber(world, subscription, habit))

    for home in range(REPLICAS):
        some = frozenset(choose.sample(range(FIRST_INSTRUMENTS + 8), 5))
        late = choose.uniform(0.3, 0.7) * world.form.seconds
        subscribe(f"loyal {home}", None, True, Habit(home, columns=True))
        subscribe(f"roaming {home}", None, True, Habit(home, columns=home == 1, leaves=(1, 8)))
        subscribe(f"choosy {home}", some, home == 2, Habit(home, columns=home != 1, leaves=(3, 15)))
        if home == 0:
            subscribe("late", None, True, Habit(home, columns=True, leaves=(5, 20), joins=late))
        else:
            subscribe(f"slow {home}", None, False, Habit(home, columns=home == 1, slow=True))
    return made


async def run(form: Form, seed: int, binary: Path, folder: Path, planted: list[str]) -> History:
    """Run a form, and return what it recorded."""
    cluster = await Cluster.start(binary, folder, form.promotions > 0, planted)
    try:
        return await _run(World(form, seed, cluster))
    finally:
        await cluster.end()


async def _run(world: World) -> History:
    world.mark("start")
    readers = subscribers(world)
    async with asyncio.TaskGroup() as tasks:
        following = [tasks.create_task(each.run()) for each in readers]
        await asyncio.gather(*(each.ready.wait() for each in readers if each.joins is None))
        asking = tasks.create_task(reader.ask_on(world))
        producers = [Producer(world, number, 0.3, backfill=False) for number in (1, 2, 3)]
        producers.append(Producer(world, 4, 0.1, backfill=True))
        await asyncio.gather(Nemesis(world).run(), *(each.run() for each in producers))
        world.quiet.set()
        world.mark("load")
        await asking
        world.history.epoch, position = await reader.end_of_log(world)
        for each in readers:
            each.target = (world.history.epoch, position)
        _, waiting = await asyncio.wait(following, timeout=CATCH_UP)
        for task in waiting:
            # Its record shows what it never had.
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*waiting)
        world.mark("catching up")
        await read_logs(world, (world.history.epoch, position))
        await reader.list_everything(world)
        await reader.probe_what_is_missing(world)
        world.mark("listing")
    return world.history


async def read_logs(world: World, end: tuple[int, int]) -> None:
    """Have each replica tell the log from its beginning to its end."""
    for replica in range(REPLICAS):
        subscription = Subscription(f"log of replica {replica}", None, True)
        world.history.logs.append(subscription)
        subscriber = Subscriber(world, subscription, Habit(replica, columns=True, joins=0.0))
        subscriber.target = end
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(subscriber.run(), CATCH_UP)


def struck_in_vain(history: History) -> list[str]:
    """Return faults that did not strike while the load ran: between the first acknowledgement and the last."""
    total = history.acknowledged()
    return [
        f"{strike.kind} at {strike.struck:.1f} s"
        for strike in history.strikes
        if not history.first_acknowledgement < strike.struck <= strike.over < history.last_acknowledgement
        or not 0 < strike.batches_before < total
    ]


def report(history: History, findings: Findings, seconds: float) -> dict[str, object]:
    """Put a run into figures."""
    sessions = [session for each in history.subscriptions for session in each.sessions]
    listed = history.listings[0] if history.listings else []
    return {
        "form": history.form,
        "seed": history.seed,
        "seconds": {**{part: round(span, 1) for part, span in history.seconds.items()}, "all": round(seconds, 1)},
        "trades": sum(len(answer.ticks) for answer in listed if answer.ticks is not None),
        "corrections_acknowledged": sum(
            len(batch.corrections) for batch in history.batches.values() if batch.outcome is Outcome.ACKNOWLEDGED
        ),
        "batches_acknowledged": history.acknowledged(),
        "batches_sent": len(history.batches),
        "instruments": history.instrument_count,
        "faults": dict(Counter(strike.kind for strike in history.strikes)),
        "sessions": len(sessions),
        "ends": dict(Counter(session.end or "left" for session in sessions)),
        "ticks_delivered": sum(len(session.ticks) for session in sessions),
        "answers": len(history.answers),
        "batches_given_up_by_a_fork": sum(batch.disowned for batch in history.batches.values()),
        "strikes": [
            {
                "kind": each.kind,
                "target": each.target,
                "from": round(each.struck, 2),
                "to": round(each.over, 2),
                "batches_before": each.batches_before,
                "batches_in_flight": each.batches_in_flight,
            }
            for each in sorted(history.strikes, key=lambda each: each.struck)
        ],
        "in_vain": struck_in_vain(history),
        "standstill": history.standstill,
        "counts": findings.counts(),
        "examples": findings.examples,
    }


def spell(figures: dict[str, object]) -> str:
    """Write a report for people."""
    lines = []
    for key, value in figures.items():
        if key == "strikes" and isinstance(value, list):
            lines += [
                f"  {each['from']:7.2f} to {each['to']:7.2f} s  {each['kind']}: {each['target']}"
                f" ({each['batches_before']} batches acknowledged, {each['batches_in_flight']} in flight)"
                for each in value
            ]
        elif isinstance(value, dict):
            lines.append(f"{key}: " + ", ".join(f"{name} {count}" for name, count in value.items()))
        else:
            lines.append(f"{key}: {value}")
    return "\n".join(lines)


@dataclass
class Judged:
    """A run with what was found. The folder has the servers' logs."""

    history: History
    findings: Findings
    figures: dict[str, object]
    folder: Path

    def is_right(self) -> bool:
        """Whether every fault struck while the load ran, the load got over it, and no promise was broken."""
        return self.findings.none() and not struck_in_vain(self.history) and not self.history.standstill

    def keep(self, name: str) -> Path:
        """Keep the record and the servers' logs where whoever called us does not tidy up, and return where."""
        kept = REPOSITORY / "target" / "history" / f"{name}-{self.history.seed}"
        shutil.rmtree(kept, ignore_errors=True)
        shutil.move(self.folder, kept)
        self.history.save(kept / "history.gz")
        return kept


def judge(form: Form, seed: int, binary: Path, planted: list[str]) -> Judged:
    """Run a form and check it."""
    folder = Path(tempfile.mkdtemp(prefix="tapefeed-history."))
    begin = time.monotonic()
    history = asyncio.run(run(form, seed, binary, folder, planted))
    findings = check(history)
    return Judged(history, findings, report(history, findings, time.monotonic() - begin), folder)


def main() -> int:
    """Run one form and say what was found."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("form", choices=[*FORMS, "check"])
    arguments.add_argument("record", nargs="?", type=Path, help="for check: a record that was kept")
    arguments.add_argument("--seed", type=int, help="repeats the decisions of a run; default: a new one")
    arguments.add_argument("--report", type=Path, help="where the report is written as JSON")
    given = arguments.parse_args()
    if given.form == "check":
        history = History.load(given.record)
        print(spell(report(history, check(history), 0.0)))
        return 0
    seed = random.SystemRandom().randrange(1 << 32) if given.seed is None else given.seed
    binary = Path(os.environ["TAPEFEED_SERVER_BINARY"])
    print(f"{given.form} form, seed {seed}", flush=True)
    judged = judge(FORMS[given.form], seed, binary, [])
    print(spell(judged.figures))
    if given.report is not None:
        given.report.write_text(json.dumps(judged.figures, indent=2) + "\n")
    if judged.is_right():
        shutil.rmtree(judged.folder)
        return 0
    print(f"something is wrong: the record and the servers' logs are in {judged.keep(given.form)}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
