"""Errors: every refusal of the server as a typed exception, with its reason and facts.

An argument that cannot be sent raises TypeError or ValueError before anything is sent; everything else is a
TapefeedError. Catch a class for its whole family: InstrumentUnknown is a NotFound, NotFound is a TapefeedError.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]

from .values import Cursor

if TYPE_CHECKING:
    from ._backlog import RefusedBatch

_DOMAIN: Final = "tapefeed"
_DETAILS_KEY: Final = "grpc-status-details-bin"


class ErrorReason(str, enum.Enum):
    """Why the server refused: the reasons of the contract, in its words. Each equals its text.

    UNSPECIFIED stands for no reason, and for one that this version does not know.
    """

    UNSPECIFIED = "UNSPECIFIED"
    FIELD_INVALID = "FIELD_INVALID"
    MESSAGE_MALFORMED = "MESSAGE_MALFORMED"
    INSTRUMENT_UNKNOWN = "INSTRUMENT_UNKNOWN"
    RANGE_INVERTED = "RANGE_INVERTED"
    PAGE_TOKEN_INVALID = "PAGE_TOKEN_INVALID"
    CURSOR_INVALID = "CURSOR_INVALID"
    CURSOR_EXPIRED = "CURSOR_EXPIRED"
    EPOCH_CHANGED = "EPOCH_CHANGED"
    NO_DATA = "NO_DATA"
    PRODUCER_FENCED = "PRODUCER_FENCED"
    PRODUCER_UNKNOWN = "PRODUCER_UNKNOWN"
    BATCH_INVALID = "BATCH_INVALID"
    BATCH_OUT_OF_ORDER = "BATCH_OUT_OF_ORDER"
    BATCH_CONFLICT = "BATCH_CONFLICT"
    QUEUE_FULL = "QUEUE_FULL"
    STORE_UNAVAILABLE = "STORE_UNAVAILABLE"
    FILE_MALFORMED = "FILE_MALFORMED"
    IMPORT_CONFLICT = "IMPORT_CONFLICT"
    RUN_EXISTS = "RUN_EXISTS"
    RUN_UNKNOWN = "RUN_UNKNOWN"
    RUN_CANCELLED = "RUN_CANCELLED"
    ACTION_NOT_SUPPORTED = "ACTION_NOT_SUPPORTED"
    NOT_SERVED = "NOT_SERVED"
    METHOD_UNKNOWN = "METHOD_UNKNOWN"
    LIMIT_EXCEEDED = "LIMIT_EXCEEDED"
    SLOW_CONSUMER = "SLOW_CONSUMER"
    STREAM_EXPIRED = "STREAM_EXPIRED"
    SHUTTING_DOWN = "SHUTTING_DOWN"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    CANCELLED = "CANCELLED"
    UNAUTHENTICATED = "UNAUTHENTICATED"
    NOT_PERMITTED = "NOT_PERMITTED"
    INTERNAL = "INTERNAL"

    def __str__(self) -> str:
        return self.value


class Violation(NamedTuple):
    """A field that breaks its rule."""

    field: str
    """The path of the field in the request, such as `batch.rows.ticks[3].price`."""
    description: str
    """What is wrong with it."""


class TapefeedError(Exception):
    """What can go wrong with a call or a stream.

    Attributes:
        code: the gRPC code. None if the error is not a status.
        reason: the server's reason; ErrorReason.UNSPECIFIED if it gave none.
        message: a sentence that says what to change.
        metadata: the facts of the reason, by the names that the contract's `error_reason.proto` lists. All are text.
        violations: the fields that break a rule, the first 20.
        retry_delay: the seconds that the server asks to wait before the next attempt. None if it does not ask.
    """

    def __init__(
        self,
        message: str,
        *,
        code: grpc.StatusCode | None = None,
        reason: ErrorReason = ErrorReason.UNSPECIFIED,
        metadata: Mapping[str, str] | None = None,
        violations: tuple[Violation, ...] = (),
        retry_delay: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.reason = reason
        self.metadata: Mapping[str, str] = MappingProxyType(dict(metadata or {}))
        self.violations = violations
        self.retry_delay = retry_delay

    @property
    def cursor(self) -> Cursor | None:
        """The cursor to resume with, where the error tells one."""
        return self._cursor("cursor")

    @property
    def is_retryable(self) -> bool:
        """Whether the same request may succeed later, unchanged. Every other error is fatal: change the request.

        Retryable are UNAVAILABLE and DEADLINE_EXCEEDED; RESOURCE_EXHAUSTED with a delay, without a reason, or as
        QUEUE_FULL; PRODUCER_UNKNOWN; and INTERNAL, UNKNOWN and CANCELLED without a reason of the server, because those
        are born in the transport.
        """
        code = self.code
        without_reason = self.reason is ErrorReason.UNSPECIFIED
        if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
            return True
        if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
            return self.retry_delay is not None or without_reason or self.reason is ErrorReason.QUEUE_FULL
        if code is grpc.StatusCode.FAILED_PRECONDITION:
            return self.reason is ErrorReason.PRODUCER_UNKNOWN
        if code in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.CANCELLED):
            return without_reason
        return False

    def __str__(self) -> str:
        parts = [self.message or (self.code.name if self.code else type(self).__name__)]
        # The message may repeat its only violation.
        parts += [f"{field}: {text}" for field, text in self.violations if text not in self.message]
        text = "; ".join(parts)
        return text if self.reason is ErrorReason.UNSPECIFIED else f"{text} [{self.reason}]"

    def _cursor(self, name: str) -> Cursor | None:
        text = self.metadata.get(name)
        try:
            return Cursor.parse(text) if text else None
        except ValueError:
            return None


class InvalidArgument(TapefeedError):
    """INVALID_ARGUMENT: the request breaks a rule; `violations` names the fields."""


class RangeInverted(InvalidArgument):
    """RANGE_INVERTED: the range ends before it begins."""


class PageTokenInvalid(InvalidArgument):
    """PAGE_TOKEN_INVALID: the page token is broken, older than 10 minutes, or of other arguments."""


class CursorInvalid(InvalidArgument):
    """CURSOR_INVALID: the cursor is broken."""


class BatchInvalid(InvalidArgument):
    """BATCH_INVALID: a batch has ticks that break a rule, and nothing of it is stored."""


class FileMalformed(InvalidArgument):
    """FILE_MALFORMED: the file has a defect as a whole, and nothing of it is stored."""


class NotFound(TapefeedError):
    """NOT_FOUND: what was asked for does not exist."""


class InstrumentUnknown(NotFound):
    """INSTRUMENT_UNKNOWN: there is no such instrument."""


class NoData(NotFound):
    """NO_DATA: the instrument is known, but there is nothing to average in the range."""


class RunUnknown(NotFound):
    """RUN_UNKNOWN: there is no such run."""


class AlreadyExists(TapefeedError):
    """ALREADY_EXISTS: what was to be made is there already, and is different."""


class BatchConflict(AlreadyExists):
    """BATCH_CONFLICT: a batch has a known number with other content."""


class RunExists(AlreadyExists):
    """RUN_EXISTS: the run id names the run of another file."""


class ImportConflict(TapefeedError):
    """IMPORT_CONFLICT: another run stands in the way; `metadata["run_id"]` names it."""


class FailedPrecondition(TapefeedError):
    """FAILED_PRECONDITION: the server's state does not allow the call."""


class EpochChanged(FailedPrecondition):
    """EPOCH_CHANGED: the position was lost, for example by restoring a backup, or belongs to another server's log."""

    @property
    def oldest_cursor(self) -> Cursor | None:
        """The oldest cursor that can be resumed with."""
        return self._cursor("oldest_cursor")

    @property
    def newest_cursor(self) -> Cursor | None:
        """The newest cursor."""
        return self._cursor("newest_cursor")


class ProducerUnknown(FailedPrecondition):
    """PRODUCER_UNKNOWN: the producer is forgotten after 7 idle days; a publisher claims again by itself."""


class BatchOutOfOrder(FailedPrecondition):
    """BATCH_OUT_OF_ORDER: a batch has another number than the next one."""


class OutOfRange(TapefeedError):
    """OUT_OF_RANGE: a position lies outside of what is kept."""


class CursorExpired(OutOfRange):
    """CURSOR_EXPIRED: the cursor is older than what the server can replay."""

    @property
    def oldest_cursor(self) -> Cursor | None:
        """The oldest cursor that can be resumed with: what lies before it is missed."""
        return self._cursor("oldest_cursor")


class Aborted(TapefeedError):
    """ABORTED: another call got in the way."""


class ProducerFenced(Aborted):
    """PRODUCER_FENCED: a newer publisher has claimed the producer id."""


class RunCancelled(Aborted):
    """RUN_CANCELLED: the run was cancelled by another call."""


class ResourceExhausted(TapefeedError):
    """RESOURCE_EXHAUSTED: a limit is reached."""


class QueueFull(ResourceExhausted):
    """QUEUE_FULL: the server has more to store than it may hold. Try later."""


class LimitExceeded(ResourceExhausted):
    """LIMIT_EXCEEDED: a limit is passed; `metadata` has `limit`, `max`, and `actual` if known."""


class Unavailable(TapefeedError):
    """UNAVAILABLE: the server cannot be reached, or not now. Try later."""


class DeadlineExceeded(TapefeedError):
    """DEADLINE_EXCEEDED: no answer in time, or a `min_cursor` that was not reached in time."""


class Cancelled(TapefeedError):
    """CANCELLED: the call was cancelled."""


class Unimplemented(TapefeedError):
    """UNIMPLEMENTED: the server does not know the call."""


class NotServed(Unimplemented):
    """NOT_SERVED: the contract knows this call or option, but this server does not serve it."""


class ActionNotSupported(Unimplemented):
    """ACTION_NOT_SUPPORTED: the server does not take corrections and cancels."""


class Unauthenticated(TapefeedError):
    """UNAUTHENTICATED: the caller did not prove who they are."""


class PermissionDenied(TapefeedError):
    """PERMISSION_DENIED: the caller may not do this."""


class InternalError(TapefeedError):
    """INTERNAL: a defect, of the server if `metadata["error_id"]` is there, which its log also has; else on the way."""


class ProtocolError(TapefeedError):
    """The server's answer breaks the contract: client and server do not fit together."""


class Closed(TapefeedError):
    """The client, publisher or stream has been closed before."""


class BatchesRefused(TapefeedError):
    """Published batches were refused; `batches` has their ticks and violations. What came after them is stored."""

    def __init__(self, batches: list[RefusedBatch]) -> None:
        first = batches[0].error
        ticks = sum(len(batch.ticks) for batch in batches)
        what = "a batch was" if len(batches) == 1 else f"{len(batches)} batches were"
        super().__init__(
            f"{what} refused, {ticks} ticks are not stored: {first.message}",
            code=first.code,
            reason=first.reason,
            metadata=first.metadata,
            violations=first.violations,
        )
        self.batches = batches


_BY_REASON: Final[dict[ErrorReason, type[TapefeedError]]] = {
    ErrorReason.INSTRUMENT_UNKNOWN: InstrumentUnknown,
    ErrorReason.RANGE_INVERTED: RangeInverted,
    ErrorReason.PAGE_TOKEN_INVALID: PageTokenInvalid,
    ErrorReason.CURSOR_INVALID: CursorInvalid,
    ErrorReason.CURSOR_EXPIRED: CursorExpired,
    ErrorReason.EPOCH_CHANGED: EpochChanged,
    ErrorReason.NO_DATA: NoData,
    ErrorReason.PRODUCER_FENCED: ProducerFenced,
    ErrorReason.PRODUCER_UNKNOWN: ProducerUnknown,
    ErrorReason.BATCH_INVALID: BatchInvalid,
    ErrorReason.BATCH_OUT_OF_ORDER: BatchOutOfOrder,
    ErrorReason.BATCH_CONFLICT: BatchConflict,
    ErrorReason.QUEUE_FULL: QueueFull,
    ErrorReason.FILE_MALFORMED: FileMalformed,
    ErrorReason.IMPORT_CONFLICT: ImportConflict,
    ErrorReason.RUN_EXISTS: RunExists,
    ErrorReason.RUN_UNKNOWN: RunUnknown,
    ErrorReason.RUN_CANCELLED: RunCancelled,
    ErrorReason.ACTION_NOT_SUPPORTED: ActionNotSupported,
    ErrorReason.NOT_SERVED: NotServed,
    ErrorReason.LIMIT_EXCEEDED: LimitExceeded,
}

_BY_CODE: Final[dict[grpc.StatusCode, type[TapefeedError]]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidArgument,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.ALREADY_EXISTS: AlreadyExists,
    grpc.StatusCode.FAILED_PRECONDITION: FailedPrecondition,
    grpc.StatusCode.OUT_OF_RANGE: OutOfRange,
    grpc.StatusCode.ABORTED: Aborted,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ResourceExhausted,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.CANCELLED: Cancelled,
    grpc.StatusCode.UNIMPLEMENTED: Unimplemented,
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDenied,
    grpc.StatusCode.INTERNAL: InternalError,
}


def unavailable(message: str) -> Unavailable:
    """Make the error of a connection that counts as dead."""
    return Unavailable(message, code=grpc.StatusCode.UNAVAILABLE)


def reason_named(name: str) -> ErrorReason:
    """Find the reason of an ErrorInfo's text."""
    try:
        return ErrorReason(name)
    except ValueError:
        return ErrorReason.UNSPECIFIED


def error_of(failure: grpc.RpcError) -> TapefeedError:
    """Type a failed call, of grpc or grpc.aio. The caller raises it `from None` or from the failure."""
    # The failures of grpc and of grpc.aio have these methods, which their common type does not tell.
    call: Any = failure
    code: grpc.StatusCode = call.code()
    message: str = call.details() or ""
    for key, value in call.trailing_metadata() or ():
        if key == _DETAILS_KEY:
            return _error_with_details(code, message, value)
    return _BY_CODE.get(code, TapefeedError)(message, code=code)


def _error_with_details(code: grpc.StatusCode, message: str, details: bytes) -> TapefeedError:
    status = status_pb2.Status()
    info = error_details_pb2.ErrorInfo()
    bad_request = error_details_pb2.BadRequest()
    retry = error_details_pb2.RetryInfo()
    retry_delay = None
    try:
        status.MergeFromString(details)
        for detail in status.details:
            if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
                found = error_details_pb2.ErrorInfo()
                detail.Unpack(found)
                if found.domain == _DOMAIN:
                    info = found
            elif detail.Is(error_details_pb2.BadRequest.DESCRIPTOR):
                detail.Unpack(bad_request)
            elif detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
                detail.Unpack(retry)
                retry_delay = retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9
    except DecodeError:
        # Details that cannot be decoded take nothing from the code and the message.
        return _BY_CODE.get(code, TapefeedError)(message, code=code)
    reason = reason_named(info.reason)
    kind = _BY_REASON.get(reason) or _BY_CODE.get(code, TapefeedError)
    return kind(
        message,
        code=code,
        reason=reason,
        metadata=dict(info.metadata),
        violations=tuple(Violation(each.field, each.description) for each in bad_request.field_violations),
        retry_delay=retry_delay,
    )
