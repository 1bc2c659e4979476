"""Values: nanoseconds, exact decimals and cursors, without a server."""

from __future__ import annotations

import decimal
from datetime import datetime, timedelta, timezone
from decimal import Decimal

import pytest

import tapefeed
from tapefeed import Cursor, NewTick, UnixNanos
from tapefeed.v1 import error_reason_pb2
from tapefeed.values import decimal_from_wire, decimal_to_wire, period_to_wire, time_from_wire, time_to_wire, to_decimal

NANOS = 1_723_161_255_342_000_789


@pytest.mark.parametrize(
    ("nanos", "text"),
    [
        (0, "1970-01-01T00:00:00.000000000Z"),
        (-1, "1969-12-31T23:59:59.999999999Z"),
        (NANOS, "2024-08-08T23:54:15.342000789Z"),
        (951_782_400_000_000_000, "2000-02-29T00:00:00.000000000Z"),
        (2**63 - 1, "2262-04-11T23:47:16.854775807Z"),
        (-(2**63), "1677-09-21T00:12:43.145224192Z"),
    ],
)
def test_times_keep_every_nanosecond(nanos: int, text: str) -> None:
    time = UnixNanos(nanos)
    assert time.isoformat() == str(time) == f"{time}" == text
    assert UnixNanos(text) == time == nanos
    assert time_from_wire(time_to_wire(time)) == time
    assert isinstance(time_from_wire(time_to_wire(time)), UnixNanos)


def test_times_come_in_the_forms_that_people_have() -> None:
    assert UnixNanos("2024-08-09T01:54:15.342000789+02:00") == NANOS
    assert UnixNanos("2024-08-08t19:24:15.342000789-04:30") == NANOS
    assert UnixNanos("2024-08-08T23:54:15Z") == 1_723_161_255_000_000_000
    moment = datetime(2024, 8, 9, 1, 54, 15, 342_000, tzinfo=timezone(timedelta(hours=2)))
    assert UnixNanos(moment) == 1_723_161_255_342_000_000
    assert UnixNanos(NANOS).datetime() == moment, "the nanoseconds below a microsecond are cut off"
    assert UnixNanos(NANOS).datetime().tzinfo is timezone.utc
    assert UnixNanos(NANOS) - UnixNanos(NANOS - 1) == 1
    assert f"{UnixNanos(7):d}" == "7"
    assert repr(UnixNanos(7)) == "UnixNanos(7)"


@pytest.mark.parametrize(
    "value",
    [
        datetime(2024, 8, 9),
        "2024-08-09",
        "2024-08-09T00:00:00",
        "2024-13-09T00:00:00Z",
        "2024-08-09T00:00:00.0000000001Z",
        "2024-08-09T00:00:00+25:00",
        2**63,
    ],
)
def test_times_that_are_not_certain_are_refused(value: datetime | str | int) -> None:
    with pytest.raises(ValueError):
        UnixNanos(value)


@pytest.mark.parametrize("value", [1.5, True, None, Decimal(1)])
def test_times_of_other_kinds_are_refused(value: object) -> None:
    with pytest.raises(TypeError):
        UnixNanos(value)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "mantissa", "exponent"),
    [
        ("0", 0, 0),
        ("-0.000", 0, 0),
        ("1.25", 125, -2),
        ("1.2500", 125, -2),
        ("300", 3, 2),
        ("3E+2", 3, 2),
        ("-0.000000000000000001", -1, -18),
        ("9.223372036854775807", 9_223_372_036_854_775_807, -18),
        ("999999999999999", 999_999_999_999_999, 0),
    ],
)
def test_decimals_are_exact_in_any_context(text: str, mantissa: int, exponent: int) -> None:
    with decimal.localcontext() as context:
        context.prec = 3
        wire = decimal_to_wire(to_decimal(text, "price"), "price")
        back = decimal_from_wire(wire)
    assert (wire.mantissa, wire.exponent) == (mantissa, exponent)
    assert back == Decimal(text)
    assert "E" not in str(back) or abs(exponent) > 6


def test_whole_numbers_print_as_people_write_them() -> None:
    assert str(decimal_from_wire(decimal_to_wire(Decimal("300"), "price"))) == "300"


@pytest.mark.parametrize("value", [0.1, 1.0, True, None, b"1"])
def test_floats_are_refused_with_a_clear_message(value: object) -> None:
    with pytest.raises(TypeError, match="price="):
        NewTick("X", "A", NANOS, value)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="quantity="):
        NewTick("X", "A", NANOS, 1, value if value is not None else 0.5)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", ["NaN", "Infinity", "x", ""])
def test_numbers_that_are_none_are_refused(value: str) -> None:
    with pytest.raises(ValueError, match="price="):
        NewTick("X", "A", NANOS, value)


def test_numbers_that_the_contract_cannot_carry_are_refused() -> None:
    with pytest.raises(ValueError, match="more digits"):
        decimal_to_wire(Decimal("123456789012345.123456789012345678"), "price")


def test_periods() -> None:
    for value in ("5m", "300s", "300000ms", timedelta(minutes=5)):
        assert period_to_wire(value, "period").seconds == 300
    assert period_to_wire("1ns", "period").nanos == 1
    negative = period_to_wire(timedelta(seconds=-1.5), "period")
    assert (negative.seconds, negative.nanos) == (-1, -500_000_000)
    with pytest.raises(ValueError):
        period_to_wire("5 minutes", "period")
    with pytest.raises(TypeError):
        period_to_wire(5, "period")  # type: ignore[arg-type]


def test_cursors_have_a_text_that_can_be_stored() -> None:
    for cursor in (Cursor(b"\1\2\3"), Cursor(b"\1\2\3", (7, 42))):
        assert Cursor.parse(str(cursor)) == cursor
        assert hash(Cursor.parse(str(cursor))) == hash(cursor)
        assert bytes(cursor) == b"\1\2\3"
    assert str(Cursor(b"\1\2\3", (7, 42))).endswith("@7:42")
    assert Cursor(b"\1") != Cursor(b"\1", (7, 42))
    for text in ("", "?", "AQID@", "AQID@7", "AQID@a:b"):
        with pytest.raises(ValueError):
            Cursor.parse(text)


def test_reasons_are_those_of_the_contract() -> None:
    contract = {name.removeprefix("ERROR_REASON_") for name in error_reason_pb2.ErrorReason.keys()}  # noqa: SIM118  # It is no dict.
    assert {reason.value for reason in tapefeed.ErrorReason} == contract


@pytest.mark.parametrize(
    "target", ["https://127.0.0.1:50051", "127.0.0.1", "ftp://127.0.0.1:1", "http://127.0.0.1:50051/x", ""]
)
def test_targets_that_are_no_server_are_refused(target: str) -> None:
    with pytest.raises(ValueError):
        tapefeed.Client(target)


def test_everything_public_is_documented() -> None:
    for name in tapefeed.__all__:
        public = getattr(tapefeed, name)
        if isinstance(public, type):
            assert public.__doc__, name
