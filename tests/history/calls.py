"""Channels to replicas, the stubs of their services, and what a status says."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import grpc
import grpc.aio
from google.rpc.error_details_pb2 import ErrorInfo  # type: ignore[import-untyped]
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]
from tapefeed.v1.history_service_pb2_grpc import HistoryServiceStub
from tapefeed.v1.ingest_service_pb2_grpc import IngestServiceStub
from tapefeed.v1.instrument_service_pb2_grpc import InstrumentServiceStub
from tapefeed.v1.live_service_pb2_grpc import LiveServiceStub

from record import Fork

if TYPE_CHECKING:
    # One stub serves both kinds of channels; only its types are two.
    from tapefeed.v1.history_service_pb2_grpc import HistoryServiceAsyncStub
    from tapefeed.v1.ingest_service_pb2_grpc import IngestServiceAsyncStub
    from tapefeed.v1.instrument_service_pb2_grpc import InstrumentServiceAsyncStub
    from tapefeed.v1.live_service_pb2_grpc import LiveServiceAsyncStub

# Each call has a connection of its own, so that what is dead is found out at once, and nobody waits behind another.
OPTIONS = [
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.enable_retries", 0),
]


def channel(address: str) -> grpc.aio.Channel:
    """Open a channel to a replica. Close it after use."""
    return grpc.aio.insecure_channel(address, options=OPTIONS)


def history(channel: grpc.aio.Channel) -> HistoryServiceAsyncStub:
    """Return the service of history."""
    return cast("HistoryServiceAsyncStub", HistoryServiceStub(channel))


def ingest(channel: grpc.aio.Channel) -> IngestServiceAsyncStub:
    """Return the service of publishing."""
    return cast("IngestServiceAsyncStub", IngestServiceStub(channel))


def instruments(channel: grpc.aio.Channel) -> InstrumentServiceAsyncStub:
    """Return the service of instruments."""
    return cast("InstrumentServiceAsyncStub", InstrumentServiceStub(channel))


def live(channel: grpc.aio.Channel) -> LiveServiceAsyncStub:
    """Return the service of streams."""
    return cast("LiveServiceAsyncStub", LiveServiceStub(channel))


def reason_of(error: grpc.aio.AioRpcError) -> tuple[str, Fork | None]:
    """Read the reason of a status, and the fork that it names. `TRANSPORT`: the status is not the server's."""
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            for detail in Status.FromString(value).details:
                info = ErrorInfo()
                if detail.Unpack(info):
                    return info.reason, _fork(info)
    return "TRANSPORT", None


def _fork(info: ErrorInfo) -> Fork | None:
    known = info.metadata
    if info.reason != "EPOCH_CHANGED" or "parent_epoch" not in known:
        return None
    return Fork(int(known["epoch"]), int(known["parent_epoch"]), int(known["fork_log_seq"]))
