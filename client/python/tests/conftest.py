"""What the tests share: a real server with a store of its own, and a proxy that can be cut."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import tapefeed

# No test may wait longer than this for something to happen, in seconds: a busy machine is slow.
PATIENCE = 30.0

BINARY = os.environ.get("TAPEFEED_SERVER_BINARY", "")


class Server:
    """A server process. Killed and started again, it keeps its port and its store."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = 0
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self, *options: str, command: str = "serve") -> Server:
        output = self.folder / "output"
        with output.open("wb") as file:
            self.process = subprocess.Popen(
                [
                    BINARY,
                    command,
                    "--listen",
                    f"127.0.0.1:{self.port}",
                    "--store",
                    f"sqlite://{self.folder}/store.db",
                    *options,
                ],
                stdout=file,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                env={"PATH": os.environ["PATH"]},
            )

        def listening() -> re.Match[str] | None:
            assert self.process is not None and self.process.poll() is None, output.read_text()
            return re.search(r"listening http://127\.0\.0\.1:(\d+)", output.read_text())

        self.port = int(eventually(listening)[1])
        return self

    def end(self, how: signal.Signals) -> None:
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(PATIENCE)
            self.process = None

    def kill(self) -> None:
        self.end(signal.SIGKILL)


class Proxy:
    """A TCP proxy of one address. It cuts its connections, or swallows what passes, when it is told to."""

    def __init__(self, port: int) -> None:
        self._upstream = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.connections = 0
        # While it is mute, connections stay open and nothing passes to the client.
        self.mute = threading.Event()
        # How many bytes the client gets before each cut to come.
        self.cuts_after: list[int] = []
        self._sockets: list[socket.socket] = []
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Reset every connection."""
        with self._lock:
            sockets, self._sockets = self._sockets, []
        for each in sockets:
            try:
                each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                each.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            each.close()

    def close(self) -> None:
        self._listener.close()
        self.cut()

    @property
    def open_connections(self) -> int:
        with self._lock:
            return len(self._sockets) // 2

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            try:
                server = socket.create_connection(self._upstream)
            except OSError:
                client.close()
                continue
            with self._lock:
                self._sockets += [client, server]
            for source, sink, downstream in ((client, server, False), (server, client, True)):
                threading.Thread(target=self._pass, args=(source, sink, downstream), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket, downstream: bool) -> None:
        try:
            while data := source.recv(65_536):
                if downstream and self.mute.is_set():
                    continue
                if downstream and self.cuts_after:
                    left = self.cuts_after[0] - len(data)
                    if left <= 0:
                        self.cuts_after.pop(0)
                        self.cut()
                        return
                    self.cuts_after[0] = left
                sink.sendall(data)
        except OSError:
            pass
        with self._lock:
            self._sockets = [each for each in self._sockets if each not in (source, sink)]
        for each in (source, sink):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()


def eventually(look: Callable[[], re.Match[str] | None]) -> re.Match[str]:
    """Look until there is something to see."""
    deadline = time.monotonic() + PATIENCE
    while True:
        seen = look()
        if seen is not None:
            return seen
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def until(done: Callable[[], bool]) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + PATIENCE
    while not done():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def pytest_configure(config: pytest.Config) -> None:
    if not BINARY:
        raise pytest.UsageError("TAPEFEED_SERVER_BINARY is not set: these tests run against a real server")


@pytest.fixture(autouse=True)
def hang_is_a_failure() -> Iterator[None]:
    """Fail a test that waits for what never comes, and let its server be ended."""

    def fail(number: int, frame: object) -> None:
        faulthandler.dump_traceback(all_threads=True)
        raise AssertionError("the test hangs")

    signal.signal(signal.SIGALRM, fail)
    signal.alarm(int(2 * PATIENCE))
    yield
    signal.alarm(0)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A server of this test alone, which may be killed."""
    server = Server(tmp_path).start()
    yield server
    server.end(signal.SIGKILL)


@pytest.fixture(scope="session")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server for tests that use names of their own and leave it alive."""
    server = Server(tmp_path_factory.mktemp("shared")).start()
    yield server
    server.end(signal.SIGTERM)


@pytest.fixture
def client(shared_server: Server) -> Iterator[tapefeed.Client]:
    with tapefeed.Client(shared_server.address) as client:
        yield client


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    proxy = Proxy(server.port)
    yield proxy
    proxy.close()
