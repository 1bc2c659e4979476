"""The nemesis: faults drawn from the seed, spread over the time of the load, on replicas, store and bus at once.

Each fault waits until the load goes on after the one before it in its lane, so that none strikes what is still down.
It is put on record with how the load stood.
"""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Awaitable, Callable

from cluster import REPLICAS
from record import Strike
from world import World

# Batches that are acknowledged between two faults of a lane, and while a standby is cut off: they are lost with the
# primary.
BETWEEN = 3
LOST_TAIL = 6
# How long the load may stand still before the run is given up, in seconds.
STANDSTILL = 90.0


class Nemesis:
    """Strikes until every fault of the form has struck."""

    def __init__(self, world: World) -> None:
        self._world = world
        form = world.form
        replicas: list[tuple[str, float]] = [("kill replica", 0.0)] * form.replica_kills
        replicas += [("freeze replica", span) for span in form.freezes]
        store = ["kill Postgres"] * form.postgres_kills
        bus = ["kill Redis"] * form.redis_kills + ["FLUSHALL"] * form.flushes
        choose = world.choose("nemesis")
        choose.shuffle(replicas)
        choose.shuffle(bus)
        half = len(store) // 2
        store[half:half] = ["promote standby"] * form.promotions
        self._lanes = {"replicas": replicas, "store": [(each, 0.0) for each in store], "bus": [(e, 0.0) for e in bus]}

    async def run(self) -> None:
        """Strike, and say when it is over."""
        try:
            async with asyncio.TaskGroup() as lanes:
                for name, faults in self._lanes.items():
                    lanes.create_task(self._lane(faults, self._world.choose(f"nemesis {name}")))
            await self._load_goes_on(BETWEEN)
        except* TimeoutError:
            struck = [strike.kind for strike in self._world.history.strikes]
            self._world.history.standstill = f"the load does not go on after {', '.join(struck[-3:])}"
        self._world.calm.set()

    async def _lane(self, faults: list[tuple[str, float]], choose: random.Random) -> None:
        strikes: dict[str, Callable[[random.Random, float], Awaitable[str]]] = {
            "kill replica": self._kill_replica,
            "freeze replica": self._freeze_replica,
            "kill Postgres": self._kill_postgres,
            "promote standby": self._promote_standby,
            "kill Redis": self._kill_redis,
            "FLUSHALL": self._flush_redis,
        }
        world = self._world
        for place, (kind, span) in enumerate(faults):
            due = (place + choose.uniform(0.2, 0.8)) / len(faults) * world.form.seconds
            await asyncio.sleep(max(0.0, due - world.now()))
            await self._load_goes_on(BETWEEN)
            strike = Strike(kind, "", world.now(), 0.0, world.acknowledged_batches, world.in_flight())
            world.history.strikes.append(strike)
            strike.target = await strikes[kind](choose, span)
            strike.over = world.now()

    async def _load_goes_on(self, batches: int) -> None:
        """Wait until so many more batches are acknowledged."""
        goal = self._world.acknowledged_batches + batches
        async with asyncio.timeout(STANDSTILL):
            await self._world.acknowledged(goal)

    async def _kill_replica(self, choose: random.Random, _: float) -> str:
        replica = self._world.cluster.replicas[choose.randrange(REPLICAS)]
        async with replica.outage:
            await replica.kill()
            await asyncio.sleep(choose.uniform(0.0, 3.0))
            await replica.start()
        return f"replica {replica.number}"

    async def _freeze_replica(self, choose: random.Random, span: float) -> str:
        replica = self._world.cluster.replicas[choose.randrange(REPLICAS)]
        async with replica.outage:
            replica.signal(signal.SIGSTOP)
            await asyncio.sleep(span)
            replica.signal(signal.SIGCONT)
        return f"replica {replica.number} for {span:g} s"

    async def _kill_postgres(self, choose: random.Random, _: float) -> str:
        await self._world.cluster.crash_postgres()
        await asyncio.sleep(choose.uniform(0.0, 3.0))
        await self._world.cluster.start_postgres()
        return "primary"

    async def _promote_standby(self, choose: random.Random, _: float) -> str:
        """Cut the standby off, let the log grow without it, and put it in the primary's place.

        Meanwhile a replica is started again: it knows nothing of the part that both have.
        """
        world, cluster = self._world, self._world.cluster
        assert cluster.standby is not None
        kept = await cluster.log_position(cluster.standby)
        world.history.promotions.append(kept)
        await cluster.stop_standby()
        restarted = await self._kill_replica(choose, 0.0)
        await self._load_goes_on(LOST_TAIL)
        await cluster.promote()
        world.lost()
        return f"standby at {kept}, {restarted} started again meanwhile"

    async def _kill_redis(self, choose: random.Random, _: float) -> str:
        await self._world.cluster.kill_redis()
        await asyncio.sleep(choose.uniform(0.0, 3.0))
        await self._world.cluster.start_redis()
        return "Redis"

    async def _flush_redis(self, _: random.Random, __: float) -> str:
        await self._world.cluster.flush_redis()
        return "Redis"
