"""What a run stands on: a Postgres and its standby, a Redis, and three replicas, all of this run's own.

`tests/private` starts what is not ours. Nothing outlives the process that started it, however that one ends.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import re
import signal
import socket
from asyncio.subprocess import DEVNULL, PIPE, Process
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
PRIVATE = REPOSITORY / "tests" / "private"
REPLICAS = 3

# Seconds after which a server that does not start is given up.
START_PATIENCE = 90.0


class Unusable(Exception):
    """What a run needs does not start."""


async def private(*arguments: str, text: str = "") -> str:
    """Run one command of tests/private to its end."""
    process = await asyncio.create_subprocess_exec(PRIVATE, *arguments, stdin=PIPE, stdout=PIPE)
    output, _ = await process.communicate(text.encode())
    if process.returncode != 0:
        raise Unusable(f"tests/private {' '.join(arguments)} ended with {process.returncode}")
    return output.decode().strip()


class Held:
    """A server that tests/private starts, and removes when its input ends."""

    def __init__(self, process: Process, folder: str, url: str) -> None:
        self._process = process
        self.folder = folder
        self.url = url

    @staticmethod
    async def start(*what: str) -> Held:
        """Start one."""
        # In a group of its own: an interrupt from the keyboard is ours to pass on.
        process = await asyncio.create_subprocess_exec(
            PRIVATE, "hold", *what, stdin=PIPE, stdout=PIPE, start_new_session=True
        )
        assert process.stdout is not None
        line = (await process.stdout.readline()).decode().split()
        if len(line) != 2:
            raise Unusable(f"{what[0]} does not start")
        return Held(process, *line)

    async def end(self) -> None:
        """Stop and remove it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        await self._process.wait()


def _die_with_parent() -> None:
    """Be killed by the kernel when the process that started this one is gone."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


class Replica:
    """One server process. Killed and started again, it keeps its port."""

    def __init__(self, number: int, binary: Path, options: list[str], log: Path) -> None:
        self.number = number
        self.port = 0
        # Held by whoever disturbs it: one fault at a time.
        self.outage = asyncio.Lock()
        self._binary = binary
        self._options = options
        self._log = log
        self._process: Process | None = None

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Start it, again and again while its store is away, until it listens."""
        async with asyncio.timeout(START_PATIENCE):
            while not await self._attempt():
                await asyncio.sleep(0.1)

    async def _attempt(self) -> bool:
        with self._log.open("ab") as log:
            begin = log.tell()
            self._process = await asyncio.create_subprocess_exec(
                self._binary,
                "serve",
                "--listen",
                f"127.0.0.1:{self.port}",
                *self._options,
                stdin=DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._log.parent,
                env={"PATH": os.environ["PATH"]},
                preexec_fn=_die_with_parent,
            )
        while self._process.returncode is None:
            with self._log.open() as log:
                log.seek(begin)
                listening = re.search(r"listening http://127\.0\.0\.1:(\d+)", log.read())
            if listening:
                self.port = int(listening[1])
                return True
            await asyncio.sleep(0.02)
        return False

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    async def kill(self) -> None:
        """Kill it."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()


class Cluster:
    """Everything that runs."""

    def __init__(self, postgres: Held, standby: Held | None, redis: Held, replicas: list[Replica]) -> None:
        self.postgres = postgres
        self.standby = standby
        self.redis = redis
        self.replicas = replicas
        self._held = [each for each in (standby, redis, postgres) if each is not None]

    @staticmethod
    async def start(binary: Path, folder: Path, with_standby: bool, planted: list[str]) -> Cluster:
        """Start all of it. `planted` is SQL that is run over the schema once the first replica has made it."""
        held: list[Held] = []
        replicas: list[Replica] = []
        try:
            held += [await Held.start("postgres"), await Held.start("redis")]
            postgres, redis = held
            options = ["--store", postgres.url, "--bus", redis.url, "--compact-age", "1s", "--merge-delay", "1s"]
            for number in range(REPLICAS):
                replicas.append(Replica(number, binary, options, folder / f"replica-{number}.log"))
                await replicas[-1].start()
            for each in planted:
                await private("sql", postgres.folder, text=each)
            standby = await Held.start("standby", postgres.folder) if with_standby else None
            return Cluster(postgres, standby, redis, replicas)
        except BaseException:
            await _end(replicas, held)
            raise

    async def end(self) -> None:
        """End all of it."""
        await _end(self.replicas, self._held)

    async def crash_postgres(self) -> None:
        """Stop Postgres as a crash would."""
        await private("stop", self.postgres.folder, "immediate")

    async def start_postgres(self) -> None:
        """Start it again, on its port."""
        await private("again", self.postgres.folder)

    async def log_position(self, server: Held) -> int:
        """Read how far a Postgres has the log."""
        return int(await private("sql", server.folder, text="SELECT position FROM log_head"))

    async def stop_standby(self) -> None:
        """Stop the standby: what is committed from now on, it does not have."""
        assert self.standby is not None
        await private("stop", self.standby.folder)

    async def promote(self) -> None:
        """Crash the primary, and make the standby, which was stopped, a primary in its place."""
        assert self.standby is not None
        await private("succeed", self.standby.folder, self.postgres.folder)
        self.postgres, self.standby = self.standby, None

    async def kill_redis(self) -> None:
        """Kill Redis."""
        pid = int(Path(self.redis.folder, "pid").read_text())
        os.kill(pid, signal.SIGKILL)
        while _is_there(pid):
            await asyncio.sleep(0.01)

    async def start_redis(self) -> None:
        """Start it again, on its port, empty."""
        await private("again", self.redis.folder)

    async def flush_redis(self) -> None:
        """Take from Redis everything that it knows."""
        port = int(self.redis.url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(b"FLUSHALL\r\n")
            answer = connection.recv(64)
        if not answer.startswith(b"+OK"):
            raise Unusable(f"Redis answers {answer!r} to FLUSHALL")


def _is_there(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


async def _end(replicas: list[Replica], held: list[Held]) -> None:
    for replica in replicas:
        await replica.kill()
    for each in held:
        await each.end()
