"""Errors: every reason of the contract as its class, and what a real server refuses."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent import futures

import grpc
import pytest
from conftest import Proxy, Server
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]

import tapefeed
import tapefeed.aio
from tapefeed import Cursor, ErrorReason, NewTick, TapefeedError
from tapefeed.v1 import history_service_pb2, history_service_pb2_grpc

# The class and the usual code of each reason, and whether it is worth trying again.
REASONS: dict[ErrorReason, tuple[type[TapefeedError], grpc.StatusCode, bool]] = {
    ErrorReason.UNSPECIFIED: (TapefeedError, grpc.StatusCode.UNKNOWN, True),
    ErrorReason.FIELD_INVALID: (tapefeed.InvalidArgument, grpc.StatusCode.INVALID_ARGUMENT, False),
    ErrorReason.MESSAGE_MALFORMED: (tapefeed.InvalidArgument, grpc.StatusCode.INVALID_ARGUMENT, False),
    ErrorReason.INSTRUMENT_UNKNOWN: (tapefeed.InstrumentUnknown, grpc.StatusCode.NOT_FOUND, False),
    ErrorReason.RANGE_INVERTED: (tapefeed.RangeInverted, grpc.StatusCode.INVALID_ARGUMENT, False),
    ErrorReason.PAGE_TOKEN_INVALID: (tapefeed.PageTokenInvalid, grpc.StatusCode.INVALID_ARGUMENT, False),
    ErrorReason.CURSOR_INVALID: (tapefeed.CursorInvalid, grpc.StatusCode.INVALID_ARGUMENT, False),
    ErrorReason.CURSOR_EXPIRED: (tapefeed.CursorExpired, grpc.StatusCode.OUT_OF_RANGE, False),
    ErrorReason.EPOCH_CHANGED: (tapefeed.EpochChanged, grpc.StatusCode.FAILED_PRECONDITION, False),
    ErrorReason.NO_DATA: (tapefeed.NoData, grpc.StatusCode.NOT_FOUND, False),
    ErrorReason.PRODUCER_FENCED: (tapefeed.ProducerFenced, grpc.StatusCode.ABORTED, False),
    ErrorReason.PRODUCER_UNKNOWN: (tapefeed.ProducerUnknown, grpc.StatusCode.FAILED_PRECONDITION, True),
    ErrorReason.BATCH_INVALID: (tapefeed.BatchInvalid, grpc.StatusCode.INVALID_ARGUMENT, False),
    ErrorReason.BATCH_OUT_OF_ORDER: (tapefeed.BatchOutOfOrder, grpc.StatusCode.FAILED_PRECONDITION, False),
    ErrorReason.BATCH_CONFLICT: (tapefeed.BatchConflict, grpc.StatusCode.ALREADY_EXISTS, False),
    ErrorReason.QUEUE_FULL: (tapefeed.QueueFull, grpc.StatusCode.RESOURCE_EXHAUSTED, True),
    ErrorReason.STORE_UNAVAILABLE: (tapefeed.Unavailable, grpc.StatusCode.UNAVAILABLE, True),
    ErrorReason.FILE_MALFORMED: (tapefeed.FileMalformed, grpc.StatusCode.INVALID_ARGUMENT, False),
    ErrorReason.IMPORT_CONFLICT: (tapefeed.ImportConflict, grpc.StatusCode.ALREADY_EXISTS, False),
    ErrorReason.RUN_EXISTS: (tapefeed.RunExists, grpc.StatusCode.ALREADY_EXISTS, False),
    ErrorReason.RUN_UNKNOWN: (tapefeed.RunUnknown, grpc.StatusCode.NOT_FOUND, False),
    ErrorReason.RUN_CANCELLED: (tapefeed.RunCancelled, grpc.StatusCode.ABORTED, False),
    ErrorReason.ACTION_NOT_SUPPORTED: (tapefeed.ActionNotSupported, grpc.StatusCode.UNIMPLEMENTED, False),
    ErrorReason.NOT_SERVED: (tapefeed.NotServed, grpc.StatusCode.UNIMPLEMENTED, False),
    ErrorReason.METHOD_UNKNOWN: (tapefeed.Unimplemented, grpc.StatusCode.UNIMPLEMENTED, False),
    ErrorReason.LIMIT_EXCEEDED: (tapefeed.LimitExceeded, grpc.StatusCode.RESOURCE_EXHAUSTED, False),
    ErrorReason.SLOW_CONSUMER: (tapefeed.Unavailable, grpc.StatusCode.UNAVAILABLE, True),
    ErrorReason.STREAM_EXPIRED: (tapefeed.Unavailable, grpc.StatusCode.UNAVAILABLE, True),
    ErrorReason.SHUTTING_DOWN: (tapefeed.Unavailable, grpc.StatusCode.UNAVAILABLE, True),
    ErrorReason.DEADLINE_EXCEEDED: (tapefeed.DeadlineExceeded, grpc.StatusCode.DEADLINE_EXCEEDED, True),
    ErrorReason.CANCELLED: (tapefeed.Cancelled, grpc.StatusCode.CANCELLED, False),
    ErrorReason.UNAUTHENTICATED: (tapefeed.Unauthenticated, grpc.StatusCode.UNAUTHENTICATED, False),
    ErrorReason.NOT_PERMITTED: (tapefeed.PermissionDenied, grpc.StatusCode.PERMISSION_DENIED, False),
    ErrorReason.INTERNAL: (tapefeed.InternalError, grpc.StatusCode.INTERNAL, False),
}


class Refusing(history_service_pb2_grpc.HistoryServiceServicer):
    """A service that refuses every latest tick as it is told."""

    code = grpc.StatusCode.UNKNOWN
    details: list[Message] = []  # noqa: RUF012  # One server, one test at a time.
    raw: bytes | None = None
    calls = 0
    user_agent = ""

    def ListLatestTicks(
        self, request: history_service_pb2.ListLatestTicksRequest, context: grpc.ServicerContext
    ) -> history_service_pb2.ListLatestTicksResponse:
        Refusing.calls += 1
        for key, value in context.invocation_metadata():
            if key == "user-agent":
                Refusing.user_agent = str(value)
        status = status_pb2.Status(code=Refusing.code.value[0], message="no")
        for detail in Refusing.details:
            packed = Any()
            packed.Pack(detail)
            status.details.append(packed)
        raw = status.SerializeToString() if Refusing.raw is None else Refusing.raw
        context.set_trailing_metadata((("grpc-status-details-bin", raw),))
        context.abort(Refusing.code, "no")
        raise AssertionError("abort raises")


@pytest.fixture(scope="module")
def refusing() -> Iterator[str]:
    server = grpc.server(futures.ThreadPoolExecutor(2))
    history_service_pb2_grpc.add_HistoryServiceServicer_to_server(Refusing(), server)  # type: ignore[abstract]
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"http://127.0.0.1:{port}"
    server.stop(None).wait()


def refused(address: str, code: grpc.StatusCode, *details: Message) -> TapefeedError:
    """The error of a refusal, after checking that asyncio gives the same."""
    Refusing.code, Refusing.details, Refusing.raw = code, list(details), None

    async def ask() -> TapefeedError:
        async with tapefeed.aio.Client(address) as client:
            with pytest.raises(TapefeedError) as raised:
                await client.latest("*")
            return raised.value

    with tapefeed.Client(address) as client, pytest.raises(TapefeedError) as raised:
        client.latest("*")
    same = asyncio.run(ask())
    assert type(same) is type(raised.value) and vars(same) == vars(raised.value)
    return raised.value


def test_the_table_has_every_reason() -> None:
    assert set(REASONS) == set(ErrorReason)


@pytest.mark.parametrize("reason", [reason for reason in ErrorReason if reason is not ErrorReason.UNSPECIFIED])
def test_every_reason_has_its_class(refusing: str, reason: ErrorReason) -> None:
    kind, code, retryable = REASONS[reason]
    info = error_details_pb2.ErrorInfo(reason=reason.value, domain="tapefeed", metadata={"limit": "7"})
    error = refused(refusing, code, info)
    assert type(error) is kind
    assert error.reason is reason and error.reason == reason.value
    assert error.code is code and error.metadata == {"limit": "7"}
    assert error.is_retryable is retryable
    assert str(error) == f"no [{reason.value}]"


def test_details_are_typed(refusing: str) -> None:
    cursor = Cursor(b"\1\2\3")
    error = refused(
        refusing,
        grpc.StatusCode.OUT_OF_RANGE,
        error_details_pb2.ErrorInfo(
            reason="CURSOR_EXPIRED", domain="tapefeed", metadata={"oldest_cursor": str(cursor), "cursor": str(cursor)}
        ),
        error_details_pb2.BadRequest(
            field_violations=[error_details_pb2.BadRequest.FieldViolation(field="cursor", description="is old")]
        ),
        error_details_pb2.RetryInfo(retry_delay=Duration(seconds=1, nanos=500_000_000)),
    )
    assert isinstance(error, tapefeed.CursorExpired) and isinstance(error, tapefeed.OutOfRange)
    assert error.oldest_cursor == error.cursor == cursor
    assert error.violations == (tapefeed.Violation("cursor", "is old"),)
    assert error.retry_delay == 1.5
    assert str(error) == "no; cursor: is old [CURSOR_EXPIRED]"


def test_reasons_that_are_not_known_fall_back_to_the_code(refusing: str) -> None:
    future = error_details_pb2.ErrorInfo(reason="FROM_THE_FUTURE", domain="tapefeed")
    foreign = error_details_pb2.ErrorInfo(reason="NO_DATA", domain="elsewhere")
    for info in (future, foreign):
        error = refused(refusing, grpc.StatusCode.NOT_FOUND, info)
        assert type(error) is tapefeed.NotFound and error.reason is ErrorReason.UNSPECIFIED
    error = refused(refusing, grpc.StatusCode.DATA_LOSS)
    assert type(error) is TapefeedError and error.code is grpc.StatusCode.DATA_LOSS
    Refusing.raw = b"\xff\xff"
    with tapefeed.Client(refusing) as client, pytest.raises(TapefeedError, match="no"):
        client.latest("*")


def test_reads_are_repeated_while_the_server_is_unavailable(refusing: str) -> None:
    Refusing.calls = 0
    Refusing.code, Refusing.details, Refusing.raw = grpc.StatusCode.UNAVAILABLE, [], None
    with tapefeed.Client(refusing) as client, pytest.raises(tapefeed.Unavailable):
        client.latest("*")
    assert Refusing.calls == 4
    assert Refusing.user_agent.startswith(f"tapefeed-python/{tapefeed.__version__} ")


def test_a_server_that_is_not_there_is_unavailable() -> None:
    with tapefeed.Client("http://127.0.0.1:1", timeout=5) as client, pytest.raises(tapefeed.Unavailable) as raised:
        client.latest("*")
    assert raised.value.is_retryable


def test_what_a_real_server_refuses(client: tapefeed.Client, shared_server: Server) -> None:
    with client.publisher("errors") as publisher:
        publisher.send(NewTick("E", "ERR", 10**18 + 789, "1.5"))
    client.latest("ERR", min_cursor=publisher.close().cursor)
    refusals: list[tuple[type[TapefeedError], Callable[[], object]]] = [
        (tapefeed.InstrumentUnknown, lambda: list(client.ticks("NOBODY"))),
        (tapefeed.InstrumentUnknown, lambda: client.latest(["NOBODY"])),
        (tapefeed.InstrumentUnknown, lambda: client.instrument("ERR", venue="nowhere")),
        (tapefeed.NoData, lambda: client.average("ERR", end=1)),
        (tapefeed.NoData, lambda: client.average("ERR", method="vwap")),
        (tapefeed.RangeInverted, lambda: list(client.ticks("ERR", start=2, end=1))),
        (tapefeed.InvalidArgument, lambda: client.average("ERR", decimals=37)),
        (tapefeed.InvalidArgument, lambda: list(client.ticks("ERR", period="1m", end=1))),
        (tapefeed.InvalidArgument, lambda: list(client.ticks("*"))),
        (tapefeed.CursorInvalid, lambda: client.latest("ERR", min_cursor=b"broken")),
        (tapefeed.CursorInvalid, lambda: next(client.subscribe("ERR", cursor=Cursor(b"broken")))),
        (tapefeed.InvalidArgument, lambda: next(client.subscribe("not a symbol"))),
        (tapefeed.RunUnknown, lambda: client.run("none")),
        (tapefeed.RunUnknown, lambda: client.cancel_run("none")),
        (tapefeed.RunUnknown, lambda: list(client.watch("none"))),
        (tapefeed.InvalidArgument, lambda: client.publisher("not an id")),
        (tapefeed.LimitExceeded, lambda: client.latest(["ERR"] * 1_001)),
    ]
    for kind, call in refusals:
        with pytest.raises(kind) as raised:
            call()
        assert raised.value.reason is not ErrorReason.UNSPECIFIED, raised.value
        assert not raised.value.is_retryable
    with pytest.raises(tapefeed.InvalidArgument) as raised:
        client.average("ERR", decimals=37)
    assert raised.value.violations[0].field == "decimals"


def test_an_answer_that_does_not_come_in_time_is_told(server: Server, proxy: Proxy) -> None:
    async def ask() -> None:
        async with tapefeed.aio.Client(proxy.address, timeout=0.3) as client:
            with pytest.raises(tapefeed.DeadlineExceeded):
                await client.latest("*")

    with tapefeed.Client(proxy.address, timeout=0.3) as client:
        client.latest("*")
        proxy.mute.set()
        with pytest.raises(tapefeed.DeadlineExceeded) as raised:
            client.latest("*")
        assert raised.value.is_retryable
    asyncio.run(ask())


def test_arguments_that_cannot_be_sent_are_told_before(client: tapefeed.Client) -> None:
    wrong: list[tuple[type[Exception], Callable[[], object]]] = [
        (ValueError, lambda: client.ticks("ERR", limit=0)),
        (ValueError, lambda: client.average("ERR", method="median")),
        (TypeError, lambda: client.ticks("ERR", start=1.5)),  # type: ignore[arg-type]
        (ValueError, lambda: client.subscribe("ERR", cursor=b"x", snapshot=True)),
        (ValueError, lambda: client.subscribe("ERR", if_unavailable="perhaps")),
        (ValueError, lambda: client.subscribe("ERR", cursor="no cursor")),
        (TypeError, lambda: client.subscribe("ERR", cursor=5)),  # type: ignore[arg-type]
        (TypeError, lambda: client.latest([5])),  # type: ignore[list-item]
        (ValueError, lambda: client.import_file("x", time_unit="fortnights")),
        (ValueError, lambda: client.import_file("x", format="parquet")),
        (OSError, lambda: client.import_file("/nowhere/at/all.csv")),
        (ValueError, lambda: client.publisher("x", batch_size=0)),
    ]
    for kind, call in wrong:
        with pytest.raises(kind):
            call()
