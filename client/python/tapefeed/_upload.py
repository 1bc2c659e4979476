"""Imports: what is the same for sync and asyncio uploads."""

from __future__ import annotations

import os
import secrets
import time
from pathlib import Path
from typing import Final

from ._backoff import Backoff
from .answers import Import, ImportProgress, Run
from .errors import ErrorReason, TapefeedError, unavailable
from .v1 import ingest_service_pb2, ingestion_run_pb2

# How many bytes of the file a message holds.
CHUNK_BYTES: Final = 128 * 1024
# Seconds between two calls of the caller's progress.
PROGRESS_INTERVAL: Final = 0.25
# Seconds between two looks at another owner's run.
POLL_INTERVAL: Final = 1.0
# Seconds that another owner's run may stand still before the file is uploaded again: past the server's lease of 15 s.
_STANDSTILL: Final = 20.0
# How many uploads are tried, the first included.
_ATTEMPTS: Final = 10


class Upload:
    """The state of one import, over all its attempts."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        run_id: str | None,
        options: ingestion_run_pb2.ImportOptions,
        backoff: Backoff,
    ) -> None:
        self.path = Path(path)
        self._own_run_id = run_id is None
        self._run_id = run_id or _random_run_id()
        self._options = options
        self._backoff = backoff
        self._attempt = 1
        self._size = self.path.stat().st_size
        self.sent_bytes = 0
        # Why the file could not be read, told by whoever reads it for grpc.
        self.unreadable: OSError | None = None
        self.run: Run | None = None
        self._moved = time.monotonic()

    @property
    def run_id(self) -> str:
        """The name of the run in this attempt."""
        return self._run_id

    def start(self) -> ingest_service_pb2.ImportFileRequest:
        """Return the first message of an attempt."""
        self.sent_bytes = 0
        self._size = self.path.stat().st_size
        return ingest_service_pb2.ImportFileRequest(
            start=ingest_service_pb2.ImportStart(
                run_id=self._run_id, file_name=self.path.name, size_bytes=self._size, options=self._options
            )
        )

    def progress(self) -> ImportProgress:
        """Return how far the import is."""
        return ImportProgress(self._attempt, self.sent_bytes, self._size, self.run)

    def answered(self, run: Run, duplicate: bool) -> Import | None:
        """Take the answer of an attempt. None if another owner works on the file: its run is to be watched."""
        self.saw(run)
        self._moved = time.monotonic()
        return Import(run, duplicate) if run.state.is_final else None

    def saw(self, run: Run) -> None:
        """Take the run as the server tells it."""
        if run != self.run:
            self._moved = time.monotonic()
        self.run = run

    def stands_still(self) -> bool:
        """Whether the owner of the run is gone."""
        return time.monotonic() - self._moved >= _STANDSTILL

    def elsewhere(self) -> TapefeedError:
        """Return the error of a run that stands still."""
        return unavailable("the run stood still at another server")

    def failed(self, error: TapefeedError) -> float:
        """Take the failure of an attempt: after how many seconds to try again, or raises the error."""
        if error.reason is ErrorReason.RUN_EXISTS and self._attempt > 1 and self._own_run_id:
            # The upload before was cut so early that the server does not know its content.
            self._run_id = _random_run_id()
        elif not error.is_retryable:
            raise error
        if self._attempt >= _ATTEMPTS:
            raise error
        self._attempt += 1
        return self._backoff.next(error.retry_delay)


def _random_run_id() -> str:
    return f"run-{secrets.token_hex(16)}"
