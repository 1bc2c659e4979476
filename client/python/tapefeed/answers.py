"""Answers about stored ticks and imports, typed."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from decimal import Decimal
from typing import Generic, TypeVar

from .errors import ErrorReason, ProtocolError, reason_named
from .ticks import Selector, Tick, selector_from_wire, tick_from_wire
from .v1 import error_reason_pb2, history_service_pb2, ingestion_run_pb2, instrument_pb2, price_pb2
from .values import Cursor, UnixNanos, cursor_from_wire, decimal_from_wire, nanos_from_wire, time_from_wire

__all__ = [
    "Average",
    "Import",
    "ImportFailure",
    "ImportProgress",
    "Instrument",
    "Latest",
    "LatestTick",
    "Method",
    "Page",
    "PricePoint",
    "RejectedLine",
    "Run",
    "RunState",
    "Statistics",
]

T = TypeVar("T")


class Method(str, enum.Enum):
    """How prices are averaged."""

    MEAN = "mean"
    """The arithmetic mean of all prices, each tick with the same weight."""
    VWAP = "vwap"
    """The volume-weighted mean, over the ticks with a quantity above zero."""
    TWAP = "twap"
    """The time-weighted mean of one instrument: a price holds until the next. It needs a venue if there are several."""

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class Page(Generic[T]):
    """One page of a list."""

    items: list[T]
    """The items, in the order of the request. May be empty even if more pages follow."""
    next_page_token: str
    """The token of the next page; empty at the end. It lives 10 minutes."""
    as_of: Cursor | None
    """The cursor at which all pages are answered: subscribe after it to go on live. None in lists without one."""
    now: UnixNanos | None
    """The server's now that a period looked back from. None in lists without one."""


@dataclass(frozen=True)
class Instrument:
    """What the server knows about one instrument: a symbol on a venue."""

    instrument_id: int
    """The number of the instrument. It never changes within an epoch."""
    venue: str
    """The venue."""
    symbol: str
    """The symbol."""
    first_tick: Tick | None
    """The first tick by (event_time, log_seq). None if no tick is kept."""
    last_tick: Tick | None
    """The last tick by (event_time, log_seq). None if no tick is kept."""
    tick_count: int
    """How many ticks are kept."""
    price_decimals: int
    """The greatest number of decimals seen in a price, 0 to 18."""
    quantity_decimals: int
    """The greatest number of decimals seen in a quantity, 0 to 18."""
    unmatched_correction_count: int = 0
    """How many corrections and cancels are about no trade that is kept, as far as they were looked for."""
    as_of: Cursor | None = None
    """The cursor at which Client.instrument was answered. None in lists, which have one for all."""


@dataclass(frozen=True)
class LatestTick:
    """The newest tick of an instrument."""

    tick: Tick
    """The tick that is the greatest by (event_time, log_seq)."""
    age_nanos: int
    """The server's now less the tick's event time, in nanoseconds. Negative if that lies ahead."""


@dataclass(frozen=True)
class Latest:
    """The newest tick of each matching instrument."""

    ticks: list[LatestTick]
    """The ticks, each instrument once, ordered by the first selector that matches, then by venue and symbol."""
    without_data: list[Selector]
    """The selectors with an exact symbol whose instruments have no tick."""
    now: UnixNanos
    """The server's now that ages were measured against."""
    as_of: Cursor | None
    """The cursor at which the call was answered."""


@dataclass(frozen=True)
class Average:
    """An average price, and the exact sums that it comes from."""

    price: Decimal
    """The average, rounded half-even to the decimals of the request."""
    method: Method
    """The method that was used."""
    tick_count: int
    """How many ticks lie in the range. At least 1."""
    price_sum: Decimal
    """The exact sum of all prices."""
    volume: Decimal
    """The exact sum of all quantities."""
    notional: Decimal
    """The exact sum of price times quantity."""
    first_event_time: UnixNanos
    """The event time of the first tick in the range."""
    last_event_time: UnixNanos
    """The event time of the last tick in the range."""
    time_weight_nanos: int | None
    """The time that a TWAP is averaged over, in nanoseconds. None for other methods."""
    time_weighted_sum: Decimal | None
    """The exact sum of price times seconds that a TWAP comes from. None for other methods."""
    now: UnixNanos
    """The server's now that a period looked back from and that ends a TWAP."""
    as_of: Cursor | None
    """The cursor at which the call was answered."""


@dataclass(frozen=True)
class PricePoint:
    """The price of one tick, and which tick that was."""

    price: Decimal
    """The price."""
    event_time: UnixNanos
    """The time of the trade by the venue's clock."""
    log_seq: int
    """The position of the tick in its epoch's log."""
    venue: str
    """The venue of the tick."""
    symbol: str
    """The symbol of the tick."""


@dataclass(frozen=True)
class Statistics:
    """Statistics of prices over a range. Prices are None if the range has no ticks."""

    tick_count: int
    """How many ticks lie in the range."""
    first: PricePoint | None
    """The first tick by (event_time, log_seq)."""
    last: PricePoint | None
    """The last tick by (event_time, log_seq)."""
    highest: PricePoint | None
    """The greatest price, and the earliest tick that had it."""
    lowest: PricePoint | None
    """The smallest price, and the earliest tick that had it."""
    mean: Decimal | None
    """The arithmetic mean, rounded half-even."""
    vwap: Decimal | None
    """The volume-weighted mean, rounded half-even. None if no tick has a quantity above zero."""
    price_sum: Decimal
    """The exact sum of all prices."""
    volume: Decimal
    """The exact sum of all quantities."""
    notional: Decimal
    """The exact sum of price times quantity."""
    now: UnixNanos
    """The server's now that a period looked back from."""
    as_of: Cursor | None
    """The cursor at which the call was answered."""


class RunState(str, enum.Enum):
    """The state of an import."""

    UNKNOWN = "unknown"
    """A state that this version does not know."""
    UPLOADING = "uploading"
    """The file is being uploaded. Nothing is stored yet."""
    RUNNING = "running"
    """The file is being stored."""
    SUCCEEDED = "succeeded"
    """The file is stored."""
    FAILED = "failed"
    """The run stopped on an error. What is stored stays; the same file again continues."""
    CANCELLED = "cancelled"
    """The run was cancelled. What is stored stays; the same file again continues."""

    def __str__(self) -> str:
        return self.value

    @property
    def is_final(self) -> bool:
        """Whether the run has ended."""
        return self in (RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELLED)


@dataclass(frozen=True)
class ImportFailure:
    """Why a run failed."""

    reason: ErrorReason
    """The reason."""
    message: str
    """A sentence that says what to change."""


@dataclass(frozen=True)
class RejectedLine:
    """A line that could not become a tick."""

    line_number: int
    """The number of the line in the uncompressed file, from 1."""
    reason: ErrorReason
    """The reason."""
    message: str
    """A sentence that says what is wrong."""
    text: str
    """The start of the line, at most 256 bytes, printable."""


@dataclass(frozen=True)
class Run:
    """One file on its way into the log."""

    run_id: str
    """The client-made name of the run."""
    state: RunState
    """The state of the run."""
    file_name: str
    """The name of the file. May be empty."""
    size_bytes: int | None
    """The size of the file as uploaded, in bytes, if known."""
    uploaded_bytes: int
    """How many bytes were uploaded so far."""
    line_count: int
    """How many lines were read so far, rejected and ignored ones included, the header not."""
    total_line_count: int | None
    """How many lines the file has, once that is known."""
    tick_count: int
    """How many ticks are stored. They stay, however the run ends."""
    reject_count: int
    """How many lines were rejected. If the run failed on them, those of the batch in which it failed are counted."""
    ignored_count: int
    """How many lines were passed over because they hold no trade."""
    failure: ImportFailure | None
    """Why the run failed. None unless it did."""
    create_time: UnixNanos | None
    """When the run began, by the server's clock."""
    start_time: UnixNanos | None
    """When storing began. None before."""
    finish_time: UnixNanos | None
    """When the run ended. None before."""
    digest: str
    """The SHA-256 of the uncompressed bytes in hexadecimal. Empty until the upload is complete."""
    cursor: Cursor | None
    """The cursor after the run's last stored tick, for `min_cursor`. None if nothing is stored."""
    first_rejects: tuple[RejectedLine, ...]
    """The first rejected lines, at most 20."""


@dataclass(frozen=True)
class Import:
    """How an import ended."""

    run: Run
    """The run. Of a file that was imported before: the earlier run. Look at its state: it may have failed."""
    duplicate: bool
    """Whether nothing was stored because the same file is stored already."""


@dataclass(frozen=True)
class ImportProgress:
    """How far an import is."""

    attempt: int
    """The attempt that runs, from 1."""
    sent_bytes: int
    """How many bytes of the file have been handed to the network in this attempt."""
    size_bytes: int
    """The size of the file in bytes."""
    run: Run | None
    """The run as the server last told it. None until it has."""


def instrument_from_wire(instrument: instrument_pb2.Instrument, as_of: bytes = b"") -> Instrument:
    """Read an instrument of the contract."""
    return Instrument(
        instrument_id=instrument.instrument_id,
        venue=instrument.venue,
        symbol=instrument.symbol,
        first_tick=tick_from_wire(instrument.first_tick) if instrument.HasField("first_tick") else None,
        last_tick=tick_from_wire(instrument.last_tick) if instrument.HasField("last_tick") else None,
        tick_count=instrument.tick_count,
        price_decimals=instrument.price_decimals,
        quantity_decimals=instrument.quantity_decimals,
        unmatched_correction_count=instrument.unmatched_correction_count,
        as_of=cursor_from_wire(as_of),
    )


def latest_from_wire(answer: history_service_pb2.ListLatestTicksResponse) -> Latest:
    """Read the newest ticks."""
    return Latest(
        ticks=[LatestTick(tick_from_wire(each.tick), nanos_from_wire(each.age)) for each in answer.latest_ticks],
        without_data=[selector_from_wire(selector) for selector in answer.selectors_without_data],
        now=time_from_wire(answer.now),
        as_of=cursor_from_wire(answer.as_of),
    )


def average_from_wire(answer: history_service_pb2.GetAveragePriceResponse) -> Average:
    """Read an average."""
    method = {
        int(price_pb2.AVERAGE_METHOD_MEAN): Method.MEAN,
        int(price_pb2.AVERAGE_METHOD_VWAP): Method.VWAP,
        int(price_pb2.AVERAGE_METHOD_TWAP): Method.TWAP,
    }.get(answer.method)
    if method is None:
        raise ProtocolError(f"method {answer.method} is not known")
    twap = method is Method.TWAP
    return Average(
        price=Decimal(answer.average_price),
        method=method,
        tick_count=answer.tick_count,
        price_sum=Decimal(answer.price_sum),
        volume=Decimal(answer.volume),
        notional=Decimal(answer.notional),
        first_event_time=time_from_wire(answer.first_event_time),
        last_event_time=time_from_wire(answer.last_event_time),
        time_weight_nanos=nanos_from_wire(answer.time_weight) if twap else None,
        time_weighted_sum=Decimal(answer.time_weighted_sum) if twap else None,
        now=time_from_wire(answer.now),
        as_of=cursor_from_wire(answer.as_of),
    )


def statistics_from_wire(answer: history_service_pb2.GetPriceStatisticsResponse) -> Statistics:
    """Read statistics."""
    return Statistics(
        tick_count=answer.tick_count,
        first=_price_point(answer.first) if answer.HasField("first") else None,
        last=_price_point(answer.last) if answer.HasField("last") else None,
        highest=_price_point(answer.highest) if answer.HasField("highest") else None,
        lowest=_price_point(answer.lowest) if answer.HasField("lowest") else None,
        mean=Decimal(answer.mean) if answer.HasField("mean") else None,
        vwap=Decimal(answer.vwap) if answer.HasField("vwap") else None,
        price_sum=Decimal(answer.price_sum),
        volume=Decimal(answer.volume),
        notional=Decimal(answer.notional),
        now=time_from_wire(answer.now),
        as_of=cursor_from_wire(answer.as_of),
    )


def _price_point(point: price_pb2.PricePoint) -> PricePoint:
    return PricePoint(
        price=decimal_from_wire(point.price),
        event_time=time_from_wire(point.event_time),
        log_seq=point.log_seq,
        venue=point.venue,
        symbol=point.symbol,
    )


_RUN_STATES = {
    int(ingestion_run_pb2.INGESTION_RUN_STATE_UPLOADING): RunState.UPLOADING,
    int(ingestion_run_pb2.INGESTION_RUN_STATE_RUNNING): RunState.RUNNING,
    int(ingestion_run_pb2.INGESTION_RUN_STATE_SUCCEEDED): RunState.SUCCEEDED,
    int(ingestion_run_pb2.INGESTION_RUN_STATE_FAILED): RunState.FAILED,
    int(ingestion_run_pb2.INGESTION_RUN_STATE_CANCELLED): RunState.CANCELLED,
}


def run_from_wire(run: ingestion_run_pb2.IngestionRun) -> Run:
    """Read a run."""
    state = _RUN_STATES.get(run.state, RunState.UNKNOWN)
    return Run(
        run_id=run.run_id,
        state=state,
        file_name=run.file_name,
        size_bytes=run.size_bytes if run.HasField("size_bytes") else None,
        uploaded_bytes=run.uploaded_bytes,
        line_count=run.line_count,
        total_line_count=run.total_line_count if run.HasField("total_line_count") else None,
        tick_count=run.tick_count,
        reject_count=run.reject_count,
        ignored_count=run.ignored_count,
        failure=ImportFailure(_reason(run.error.reason), run.error.message) if state is RunState.FAILED else None,
        create_time=time_from_wire(run.create_time) if run.HasField("create_time") else None,
        start_time=time_from_wire(run.start_time) if run.HasField("start_time") else None,
        finish_time=time_from_wire(run.finish_time) if run.HasField("finish_time") else None,
        digest=run.digest,
        cursor=cursor_from_wire(run.cursor),
        first_rejects=tuple(
            RejectedLine(line.line_number, _reason(line.reason), line.message, line.text) for line in run.first_rejects
        ),
    )


def _reason(reason: int) -> ErrorReason:
    try:
        name = error_reason_pb2.ErrorReason.Name(reason)  # type: ignore[arg-type]
    except ValueError:
        return ErrorReason.UNSPECIFIED
    return reason_named(name.removeprefix("ERROR_REASON_"))
