"""Packed columns are read as protobuf reads them."""

from __future__ import annotations

import random

import pytest

from tapefeed import ProtocolError, _columns
from tapefeed.v1 import tick_columns_pb2


def packed(values: list[int]) -> memoryview:
    """The bytes of a packed column of these numbers, as protobuf writes them."""
    data = tick_columns_pb2.TickColumns(quantity=values).SerializeToString()
    ((field, column),) = _columns._fields(memoryview(data))
    assert field == 6 and isinstance(column, memoryview)
    return column


def test_numbers_of_every_length() -> None:
    chance = random.Random(7)
    edges = [edge for bits in range(65) for edge in (2**bits - 1, 2**bits, 2**bits + 1) if edge < 2**64]
    for most in (7, 8, 14, 28, 49, 56, 57, 63, 64):
        values = [chance.getrandbits(chance.randint(1, most)) for _ in range(500)]
        for column in (values, [edge for edge in edges if edge < 2**most], values[:1], [2**most - 1]):
            assert _columns._varints(packed(column), len(column)).tolist() == column


def test_what_is_no_column_of_numbers() -> None:
    column = bytes(packed([1, 300, 2**64 - 1]))
    for damaged, count in ((column, 2), (column, 4), (column[:-1], 3), (column[:-1], 2), (b"\x80", 1), (b"", 1)):
        with pytest.raises(ProtocolError, match="different lengths"):
            _columns._varints(memoryview(damaged), count)
    with pytest.raises(ProtocolError, match="more than 64 bits"):
        _columns._varints(memoryview(b"\xff" * 10 + b"\x01"), 1)
