"""Publishing: batches with numbers, so that nothing is lost and nothing is stored twice. asyncio: `tapefeed.aio`."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from types import TracebackType

import grpc

from ._backlog import GRANT_TIMEOUT, Backlog, PublisherStatus, Receipt, encode_all
from ._channel import Settings
from .errors import Closed, TapefeedError, error_of, unavailable
from .ticks import NewTick
from .v1 import ingest_service_pb2, ingest_service_pb2_grpc

__all__ = ["Publisher"]


class Publisher:
    """A publisher of one producer id. Made by `Client.publisher`; its methods may be called from any thread.

    A tick counts as stored when `flush` or `close` has returned after it: it is then on the server's disk. Until then
    it is kept here, and a cut, a restart of the server or a lost acknowledgement makes the publisher send the same
    batch with the same number again, which the server stores once.

    A batch is stored as a whole or not at all. One that breaks a rule is taken out and told by the next `flush` or
    `close` as BatchesRefused, with its ticks and the violations; the batches behind it are stored. If more than eight
    wait to be asked for, the publisher ends, because nobody seems to look.

    A fatal error, such as ProducerFenced, ends the publisher; every later call raises it.

    As a context manager it closes at the end of the block. A block that is left by an exception gives up what is not
    acknowledged.
    """

    def __init__(self, settings: Settings, backlog: Backlog) -> None:
        self._settings = settings
        self._backlog = backlog
        # Guards the backlog; notified when anything in it changes.
        self._changed = threading.Condition()
        self._closed = False
        self._call: grpc.RpcContext | None = None
        # Why the last connection ended, and why this one was given up here, if it was.
        self._last_error: TapefeedError | None = None
        self._dead = ""
        self._thread = threading.Thread(target=self._run, name="tapefeed-publisher", daemon=True)

    def _start(self) -> None:
        self._thread.start()
        with self._changed:
            granted = self._changed.wait_for(
                lambda: self._backlog.granted or self._backlog.failure is not None, self._settings.timeout
            )
            if granted and self._backlog.failure is None:
                return
            error = self._backlog.failure or self._last_error or unavailable("the claim was not answered in time")
        self._abandon()
        raise error

    @property
    def status(self) -> PublisherStatus:
        """The counts right now, as a copy."""
        with self._changed:
            return replace(self._backlog.status)

    def send(self, *ticks: NewTick) -> None:
        """Take ticks. Returns before they are stored; waits while the server is slower than the ticks come.

        Raises:
            TypeError, ValueError: a tick cannot be sent. None of this call's ticks is taken.
            TapefeedError: the fatal error that ended the publisher, Closed after `close`.
        """
        self.send_all(ticks)

    def send_all(self, ticks: Iterable[NewTick]) -> None:
        """Take many ticks at once, as `send`."""
        encoded = encode_all(ticks)
        with self._changed:
            for tick, row, size in encoded:
                if not self._backlog.has_room:
                    # What has gathered is to be sent now, or there will be no room.
                    self._changed.notify_all()
                self._wait_for(lambda: self._backlog.has_room, None)
                self._backlog.gather(tick, row, size)
            self._changed.notify_all()

    def flush(self, timeout: float | None = None) -> Receipt:
        """Wait until everything taken before is on the server's disk.

        Args:
            timeout: seconds to wait at most. Default None: as long as it takes, over any number of reconnects.

        Raises:
            BatchesRefused: batches were refused since the last call; what came between and after them is stored.
            TimeoutError: not everything is stored yet. The publisher goes on.
            TapefeedError: the fatal error that ended the publisher, Closed after `close`.
        """
        with self._changed:
            self._backlog.seal()
            target = self._backlog.sealed
            self._changed.notify_all()
            if not self._wait_for(lambda: self._backlog.settled >= target, timeout):
                raise TimeoutError(f"{self._backlog.status.pending_ticks} ticks are not stored after {timeout} s")
            self._backlog.take_refused()
            return self._backlog.receipt

    def close(self, timeout: float | None = None) -> Receipt:
        """Wait until everything is on the server's disk, and end the publisher. Arguments and errors as `flush`."""
        if self._closed:
            return self._backlog.receipt
        try:
            return self.flush(timeout)
        finally:
            self._abandon()

    def __enter__(self) -> Publisher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self._abandon()

    def _abandon(self) -> None:
        with self._changed:
            self._closed = True
            call = self._call
            self._changed.notify_all()
        if call is not None:
            call.cancel()
        self._thread.join()

    def _wait_for(self, done: object, timeout: float | None) -> bool:
        """Wait, with the lock held, until something is so. Raises what ended the publisher."""
        assert callable(done)
        self._changed.wait_for(lambda: done() or self._backlog.failure is not None or self._closed, timeout)
        self._backlog.check()
        if self._closed:
            raise Closed("the publisher is closed")
        return bool(done())

    # The thread that owns the connection. grpc reads requests in a thread of its own.

    def _run(self) -> None:
        backoff = self._settings.backoff()
        while not self._closed:
            settled = self._backlog.settled
            error = self._connection()
            with self._changed:
                self._changed.notify_all()
                if self._closed:
                    return
                self._last_error = error
                try:
                    again = self._backlog.cut(error)
                except TapefeedError as fatal:
                    self._backlog.failure = fatal
                    return
                if self._backlog.settled > settled:
                    backoff.reset()
                if not again:
                    self._changed.wait_for(lambda: self._closed, backoff.next(error.retry_delay))

    def _connection(self) -> TapefeedError:
        """Publish over one connection; returns why it ended."""
        options = self._settings.channel_options(own_connection=True)
        with grpc.insecure_channel(self._settings.target(), options) as channel:
            ended = threading.Event()
            stub = ingest_service_pb2_grpc.IngestServiceStub(channel)
            call = stub.PublishTicks(self._requests(ended))
            with self._changed:
                self._call = call
                if self._closed:
                    call.cancel()
            try:
                for message in call:
                    with self._changed:
                        self._backlog.take(message)
                        self._changed.notify_all()
                return unavailable("the server ended the stream")
            except grpc.RpcError as failure:
                if self._dead:
                    return unavailable(self._dead)
                return error_of(failure)
            except TapefeedError as broken:
                return broken
            finally:
                ended.set()
                with self._changed:
                    self._call = None
                    self._dead = ""
                    self._backlog.status.connected = False
                    self._changed.notify_all()
                call.cancel()

    def _requests(self, ended: threading.Event) -> Iterator[ingest_service_pb2.PublishTicksRequest]:
        """Yield what is to be sent, as it may be sent, until the connection has ended."""
        yield self._backlog.claim
        give_up = time.monotonic() + GRANT_TIMEOUT
        while True:
            with self._changed:
                request = None
                if ended.is_set():
                    return
                if self._backlog.status.connected:
                    if self._backlog.is_overdue():
                        self._give_up("no acknowledgement in time")
                        return
                    sealed = self._backlog.sealed
                    request = self._backlog.next_request()
                    if request is None:
                        self._changed.wait(self._backlog.wait())
                    elif self._backlog.sealed != sealed or self._backlog.has_room:
                        self._changed.notify_all()
                elif time.monotonic() >= give_up:
                    self._give_up("no grant in time")
                    return
                else:
                    self._changed.wait(give_up - time.monotonic())
            if request is not None:
                yield request

    def _give_up(self, why: str) -> None:
        self._dead = why
        if self._call is not None:
            self._call.cancel()
