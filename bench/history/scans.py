"""All ticks of the busiest instrument out of each, into memory of this process."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import grpc
import tapefeed
from adbc_driver_postgresql import dbapi as adbc
from figures import figure, timed
from peers import CLICKHOUSE, DUCKDB, POSTGRES, Databases
from tapefeed.v1.history_service_pb2 import ReadTicksRequest, ReadTicksResponse
from tapefeed.v1.stream_event_pb2 import ENCODING_COLUMNS

NUMPY = f"{DUCKDB} into numpy"


def run(server: str, client: tapefeed.Client, databases: Databases, quick: bool) -> None:
    symbol = databases.symbols[0]
    count = client.statistics(symbol).tick_count
    sql = f"SELECT event_time, price, quantity, side, trade_id FROM ticks WHERE symbol = '{symbol}' ORDER BY event_time"
    channel = grpc.insecure_channel(server.removeprefix("http://"))

    def read(deserializer: Callable[[bytes], int]) -> int:
        stream = channel.unary_stream(
            "/tapefeed.v1.HistoryService/ReadTicks",
            request_serializer=ReadTicksRequest.SerializeToString,
            response_deserializer=deserializer,
        )
        return sum(stream(ReadTicksRequest(symbol=symbol, encoding=ENCODING_COLUMNS)))

    def ticks_of(message: bytes) -> int:
        return len(ReadTicksResponse.FromString(message).columns.log_seq_delta)

    # What the server gives and a connection takes: the lengths of messages, which are not read but once.
    assert read(ticks_of) == count
    whole = read(len)

    def messages() -> int:
        # Tokens and times of two readings differ by some bytes.
        return count if abs(read(len) - whole) < 1_024 else 0

    def house() -> int:
        table: Any = databases.house.query(sql.replace("FROM ticks", "FROM bench.ticks"), "ArrowTable")
        return len(table)

    def rows() -> int:
        with adbc.connect(databases.database) as connection, connection.cursor() as cursor:
            cursor.execute(sql)
            return len(cursor.fetch_arrow_table())

    ours = ["messages of columns", "numpy arrays"]
    ways: dict[str, Callable[[], int]] = {
        ours[0]: messages,
        ours[1]: lambda: len(client.read_ticks(symbol)),
        DUCKDB: lambda: len(databases.duck.sql(sql).to_arrow_table()),
        NUMPY: lambda: len(databases.duck.sql(sql).fetchnumpy()["event_time"]),
        CLICKHOUSE: house,
    }
    if databases.rows is not None:
        ways[POSTGRES] = rows
    rates: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(3 if quick else 5):
        for way, work in ways.items():
            seconds, found = timed(work)
            assert found == count, (way, found, count)
            rates[way].append(count / seconds)
    channel.close()
    medians = {way: statistics.median(each) for way, each in rates.items()}
    for own in ours:
        for peer in list(ways)[len(ours) :]:
            goal = ("at least 2x DuckDB", medians[own] >= 2 * medians[peer]) if DUCKDB in peer else None
            case = f"Python: all {count} ticks of one instrument as {own}, those of others as Arrow or numpy"
            figure(case, "out of the server", "ticks/s", medians[own], (peer, medians[peer]), goal)
