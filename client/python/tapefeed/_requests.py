"""Requests of the contract, made from arguments. The same for sync and asyncio."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, Union

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from .answers import Method, RunState
from .bars import BarFill
from .ticks import SelectorLike, selectors_to_wire
from .v1 import (
    bar_pb2,
    history_service_pb2,
    ingest_service_pb2,
    ingestion_run_pb2,
    instrument_service_pb2,
    live_service_pb2,
    position_pb2,
    price_pb2,
    stream_event_pb2,
)
from .values import CursorLike, PeriodLike, TimeLike, cursor_to_wire, period_to_wire, time_to_wire, to_cursor

_METHODS: Final = {
    Method.MEAN: price_pb2.AVERAGE_METHOD_MEAN,
    Method.VWAP: price_pb2.AVERAGE_METHOD_VWAP,
    Method.TWAP: price_pb2.AVERAGE_METHOD_TWAP,
}

_FILLS: Final = {
    BarFill.SKIP: bar_pb2.BAR_FILL_SKIP,
    BarFill.NULL: bar_pb2.BAR_FILL_NULL,
    BarFill.PREVIOUS: bar_pb2.BAR_FILL_PREVIOUS,
}

_RUN_STATES: Final = {
    None: ingestion_run_pb2.INGESTION_RUN_STATE_UNSPECIFIED,
    RunState.UPLOADING: ingestion_run_pb2.INGESTION_RUN_STATE_UPLOADING,
    RunState.RUNNING: ingestion_run_pb2.INGESTION_RUN_STATE_RUNNING,
    RunState.SUCCEEDED: ingestion_run_pb2.INGESTION_RUN_STATE_SUCCEEDED,
    RunState.FAILED: ingestion_run_pb2.INGESTION_RUN_STATE_FAILED,
    RunState.CANCELLED: ingestion_run_pb2.INGESTION_RUN_STATE_CANCELLED,
}

_FORMATS: Final = {
    None: ingestion_run_pb2.IMPORT_FORMAT_UNSPECIFIED,
    "csv": ingestion_run_pb2.IMPORT_FORMAT_CSV,
    "binance_capture": ingestion_run_pb2.IMPORT_FORMAT_BINANCE_CAPTURE,
    "json_lines": ingestion_run_pb2.IMPORT_FORMAT_JSON_LINES,
    "b3_trades": ingestion_run_pb2.IMPORT_FORMAT_B3_TRADES,
    "cotahist": ingestion_run_pb2.IMPORT_FORMAT_COTAHIST,
}

_TIME_UNITS: Final = {
    None: ingestion_run_pb2.TIME_UNIT_UNSPECIFIED,
    "s": ingestion_run_pb2.TIME_UNIT_SECONDS,
    "ms": ingestion_run_pb2.TIME_UNIT_MILLISECONDS,
    "us": ingestion_run_pb2.TIME_UNIT_MICROSECONDS,
    "ns": ingestion_run_pb2.TIME_UNIT_NANOSECONDS,
    "text": ingestion_run_pb2.TIME_UNIT_TEXT,
}

_UNAVAILABLE_POLICIES: Final = {
    "fail": stream_event_pb2.UNAVAILABLE_POLICY_FAIL,
    "from_oldest": stream_event_pb2.UNAVAILABLE_POLICY_FROM_OLDEST,
    "snapshot": stream_event_pb2.UNAVAILABLE_POLICY_SNAPSHOT,
}


def _time(value: TimeLike | None) -> Timestamp | None:
    return None if value is None else time_to_wire(value)


def _period(value: PeriodLike | None, name: str) -> Duration | None:
    return None if value is None else period_to_wire(value, name)


def _page_size(page_size: int, limit: int | None) -> int:
    if limit is not None and limit < 1:
        raise ValueError(f"limit={limit}: give at least 1, or None for all")
    # 0 is the server's default of 1,000: there is no use in asking for more than the limit.
    return page_size if limit is None else min(page_size or 1_000, limit)


def list_ticks(
    symbol: str,
    venue: str,
    start: TimeLike | None,
    end: TimeLike | None,
    period: PeriodLike | None,
    reverse: bool,
    page_size: int,
    limit: int | None,
    min_cursor: CursorLike | None,
) -> history_service_pb2.ListTicksRequest:
    """Ask for ticks."""
    return history_service_pb2.ListTicksRequest(
        symbol=symbol,
        venue=venue,
        start_time=_time(start),
        end_time=_time(end),
        period=_period(period, "period"),
        order=history_service_pb2.ORDER_DESCENDING if reverse else history_service_pb2.ORDER_ASCENDING,
        page_size=_page_size(page_size, limit),
        min_cursor=cursor_to_wire(min_cursor),
    )


def read_ticks(
    symbol: str,
    venue: str,
    start: TimeLike | None,
    end: TimeLike | None,
    period: PeriodLike | None,
    min_cursor: CursorLike | None,
) -> history_service_pb2.ReadTicksRequest:
    """Ask for all ticks of a range, in columns."""
    return history_service_pb2.ReadTicksRequest(
        symbol=symbol,
        venue=venue,
        start_time=_time(start),
        end_time=_time(end),
        period=_period(period, "period"),
        min_cursor=cursor_to_wire(min_cursor),
        encoding=stream_event_pb2.ENCODING_COLUMNS,
    )


def list_latest(
    selectors: Iterable[SelectorLike] | SelectorLike, venue: str, min_cursor: CursorLike | None
) -> history_service_pb2.ListLatestTicksRequest:
    """Ask for the newest ticks."""
    return history_service_pb2.ListLatestTicksRequest(
        selectors=selectors_to_wire(selectors, venue), min_cursor=cursor_to_wire(min_cursor)
    )


def average(
    symbol: str,
    venue: str,
    start: TimeLike | None,
    end: TimeLike | None,
    period: PeriodLike | None,
    method: Method | str,
    decimals: int | None,
    min_cursor: CursorLike | None,
) -> history_service_pb2.GetAveragePriceRequest:
    """Ask for an average."""
    return history_service_pb2.GetAveragePriceRequest(
        symbol=symbol,
        venue=venue,
        start_time=_time(start),
        end_time=_time(end),
        period=_period(period, "period"),
        method=_METHODS[Method(method)],
        decimals=decimals,
        min_cursor=cursor_to_wire(min_cursor),
    )


def statistics(
    symbol: str,
    venue: str,
    start: TimeLike | None,
    end: TimeLike | None,
    period: PeriodLike | None,
    decimals: int | None,
    min_cursor: CursorLike | None,
) -> history_service_pb2.GetPriceStatisticsRequest:
    """Ask for statistics."""
    return history_service_pb2.GetPriceStatisticsRequest(
        symbol=symbol,
        venue=venue,
        start_time=_time(start),
        end_time=_time(end),
        period=_period(period, "period"),
        decimals=decimals,
        min_cursor=cursor_to_wire(min_cursor),
    )


def list_bars(
    symbol: str,
    interval: PeriodLike,
    venue: str,
    start: TimeLike | None,
    end: TimeLike | None,
    period: PeriodLike | None,
    last: int | None,
    include_forming: bool,
    fill: BarFill | str,
    decimals: int | None,
    page_size: int,
    min_cursor: CursorLike | None,
) -> history_service_pb2.ListBarsRequest:
    """Ask for bars."""
    if last is not None and last < 1:
        raise ValueError(f"last={last}: give at least 1, or None for all")
    return history_service_pb2.ListBarsRequest(
        symbol=symbol,
        venue=venue,
        start_time=_time(start),
        end_time=_time(end),
        period=_period(period, "period"),
        interval=period_to_wire(interval, "interval"),
        last_count=last or 0,
        include_forming=include_forming,
        fill=_FILLS[BarFill(fill)],
        decimals=decimals,
        page_size=page_size,
        min_cursor=cursor_to_wire(min_cursor),
    )


def list_moving_averages(
    symbol: str,
    window: int,
    interval: PeriodLike | None,
    exponential: bool,
    venue: str,
    start: TimeLike | None,
    end: TimeLike | None,
    period: PeriodLike | None,
    decimals: int | None,
    page_size: int,
    min_cursor: CursorLike | None,
) -> history_service_pb2.ListMovingAveragesRequest:
    """Ask for moving averages."""
    return history_service_pb2.ListMovingAveragesRequest(
        symbol=symbol,
        venue=venue,
        start_time=_time(start),
        end_time=_time(end),
        period=_period(period, "period"),
        method=price_pb2.MOVING_AVERAGE_METHOD_EXPONENTIAL if exponential else price_pb2.MOVING_AVERAGE_METHOD_SIMPLE,
        window_count=window,
        bar_interval=_period(interval, "interval"),
        decimals=decimals,
        page_size=page_size,
        min_cursor=cursor_to_wire(min_cursor),
    )


def get_instrument(
    symbol: str, venue: str, min_cursor: CursorLike | None
) -> instrument_service_pb2.GetInstrumentRequest:
    """Ask for one instrument."""
    return instrument_service_pb2.GetInstrumentRequest(
        symbol=symbol, venue=venue, min_cursor=cursor_to_wire(min_cursor)
    )


def list_instruments(
    symbol: str, venue: str, page_size: int, min_cursor: CursorLike | None
) -> instrument_service_pb2.ListInstrumentsRequest:
    """Ask for instruments."""
    return instrument_service_pb2.ListInstrumentsRequest(
        symbol=symbol, venue=venue, page_size=page_size, min_cursor=cursor_to_wire(min_cursor)
    )


def list_runs(state: RunState | str | None, page_size: int) -> ingest_service_pb2.ListIngestionRunsRequest:
    """Ask for runs."""
    wanted = None if state is None else RunState(state)
    if wanted is RunState.UNKNOWN:
        raise ValueError("state: a run that is asked for has a known state")
    return ingest_service_pb2.ListIngestionRunsRequest(state=_RUN_STATES[wanted], page_size=page_size)


def subscribe(
    selectors: Iterable[SelectorLike],
    venue: str,
    cursor: CursorLike | None,
    snapshot: bool,
    start: TimeLike | None,
    conflate: PeriodLike | None,
    include_backfill: bool,
    heartbeat: PeriodLike | None,
    flush_window: PeriodLike | None,
    if_unavailable: str,
) -> live_service_pb2.SubscribeTicksRequest:
    """Ask for a stream of ticks."""
    if (cursor is not None) + snapshot + (start is not None) > 1:
        raise ValueError("cursor, snapshot and start exclude each other: a stream has one beginning")
    if if_unavailable not in _UNAVAILABLE_POLICIES:
        raise ValueError(f"if_unavailable={if_unavailable!r}: give one of {', '.join(_UNAVAILABLE_POLICIES)}")
    request = live_service_pb2.SubscribeTicksRequest(
        selectors=selectors_to_wire(list(selectors) or ["*"], venue),
        delivery=stream_event_pb2.DELIVERY_LOSSLESS if conflate is None else stream_event_pb2.DELIVERY_CONFLATED,
        min_interval=_period(conflate, "conflate"),
        include_backfill=include_backfill,
        heartbeat_interval=_period(heartbeat, "heartbeat"),
        flush_window=_period(flush_window, "flush_window"),
        if_unavailable=_UNAVAILABLE_POLICIES[if_unavailable],
    )
    if cursor is not None:
        resume_after(request, cursor)
    elif snapshot:
        request.snapshot.SetInParent()
    elif start is not None:
        request.start_time.CopyFrom(time_to_wire(start))
    else:
        request.live.SetInParent()
    return request


def subscribe_bars(
    selectors: Iterable[SelectorLike],
    interval: PeriodLike,
    venue: str,
    cursor: CursorLike | None,
    snapshot: bool,
    include_forming: bool,
    min_interval: PeriodLike | None,
    decimals: int | None,
    heartbeat: PeriodLike | None,
    if_unavailable: str,
) -> live_service_pb2.SubscribeBarsRequest:
    """Ask for a stream of bars."""
    if cursor is not None and snapshot:
        raise ValueError("cursor and snapshot exclude each other: a stream has one beginning")
    if if_unavailable not in _UNAVAILABLE_POLICIES:
        raise ValueError(f"if_unavailable={if_unavailable!r}: give one of {', '.join(_UNAVAILABLE_POLICIES)}")
    request = live_service_pb2.SubscribeBarsRequest(
        selectors=selectors_to_wire(list(selectors) or ["*"], venue),
        interval=period_to_wire(interval, "interval"),
        include_forming=include_forming,
        min_interval=_period(min_interval, "min_interval"),
        heartbeat_interval=_period(heartbeat, "heartbeat"),
        if_unavailable=_UNAVAILABLE_POLICIES[if_unavailable],
        decimals=decimals,
    )
    if cursor is not None:
        resume_after(request, cursor)
    elif snapshot:
        request.snapshot.SetInParent()
    else:
        request.live.SetInParent()
    return request


Subscribe = Union[live_service_pb2.SubscribeTicksRequest, live_service_pb2.SubscribeBarsRequest]
"""What a stream is asked for with."""


def resume_after(request: Subscribe, cursor: CursorLike) -> None:
    """Make a subscription begin after a cursor, or after the tick in a message that the cursor names."""
    after = to_cursor(cursor)
    if after.position is None:
        request.cursor = bytes(after)
    elif isinstance(request, live_service_pb2.SubscribeBarsRequest):
        raise ValueError(
            "cursor: it names a tick inside a message, after which no bar begins; give one between messages"
        )
    else:
        epoch, log_seq = after.position
        request.position.CopyFrom(position_pb2.StartPosition(epoch=epoch, log_seq=log_seq))


def import_options(
    format: str | None,
    venue: str,
    symbol: str,
    columns: Mapping[str, str] | None,
    time_unit: str | None,
    receive_time_unit: str | None,
    delimiter: str,
    max_rejects: int | None,
    again: bool,
) -> ingestion_run_pb2.ImportOptions:
    """Say how a file is to be read."""
    if format not in _FORMATS:
        raise ValueError(f"format={format!r}: give one of {', '.join(filter(None, _FORMATS))}")
    for name, unit in (("time_unit", time_unit), ("receive_time_unit", receive_time_unit)):
        if unit not in _TIME_UNITS:
            raise ValueError(f"{name}={unit!r}: give one of {', '.join(filter(None, _TIME_UNITS))}")
    return ingestion_run_pb2.ImportOptions(
        format=_FORMATS[format],
        venue=venue,
        symbol=symbol,
        column_mappings=[
            ingestion_run_pb2.ColumnMapping(field=field, column=column) for field, column in (columns or {}).items()
        ],
        time_unit=_TIME_UNITS[time_unit],
        receive_time_unit=_TIME_UNITS[receive_time_unit],
        delimiter=delimiter,
        max_rejects=max_rejects,
        again=again,
    )
