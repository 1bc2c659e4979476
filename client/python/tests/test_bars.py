"""Bars as they come from the wire."""

from __future__ import annotations

from decimal import Decimal

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

import tapefeed
from tapefeed.bars import bar_from_wire
from tapefeed.v1 import bar_pb2, decimal_pb2


def test_every_field_of_a_bar_has_its_own_value() -> None:
    wire = bar_pb2.Bar(
        venue="A",
        symbol="X",
        instrument_id=7,
        start_time=Timestamp(seconds=60),
        end_time=Timestamp(seconds=120),
        open_price=decimal_pb2.Decimal(mantissa=2),
        high_price=decimal_pb2.Decimal(mantissa=4),
        low_price=decimal_pb2.Decimal(mantissa=1),
        close_price=decimal_pb2.Decimal(mantissa=3),
        open_time=Timestamp(seconds=61),
        high_time=Timestamp(seconds=64),
        low_time=Timestamp(seconds=62),
        close_time=Timestamp(seconds=63, nanos=5),
        volume="10.5",
        notional="30.25",
        vwap="2.88",
        tick_count=9,
        state=bar_pb2.BAR_STATE_FINAL,
        revision=11,
        has_source_gap=True,
    )
    assert bar_from_wire(wire) == tapefeed.Bar(
        venue="A",
        symbol="X",
        instrument_id=7,
        start=tapefeed.UnixNanos(60_000_000_000),
        end=tapefeed.UnixNanos(120_000_000_000),
        open=Decimal(2),
        high=Decimal(4),
        low=Decimal(1),
        close=Decimal(3),
        open_time=tapefeed.UnixNanos(61_000_000_000),
        high_time=tapefeed.UnixNanos(64_000_000_000),
        low_time=tapefeed.UnixNanos(62_000_000_000),
        close_time=tapefeed.UnixNanos(63_000_000_005),
        volume=Decimal("10.5"),
        notional=Decimal("30.25"),
        vwap=Decimal("2.88"),
        tick_count=9,
        is_final=True,
        revision=11,
        has_source_gap=True,
    )


def test_an_empty_bar_has_no_prices_and_a_state_that_nobody_knows_is_refused() -> None:
    wire = bar_pb2.Bar(symbol="X", volume="0", notional="0", state=bar_pb2.BAR_STATE_FORMING)
    bar = bar_from_wire(wire)
    assert (bar.instrument_id, bar.open, bar.close_time, bar.vwap) == (None, None, None, None)
    assert (bar.volume, bar.tick_count, bar.is_final) == (Decimal(0), 0, False)
    wire.state = 7  # type: ignore[assignment]
    with pytest.raises(tapefeed.ProtocolError):
        bar_from_wire(wire)
