"""The peers of `bench/run history`: DuckDB, ClickHouse and rows in Postgres hold the ticks that Tapefeed holds.

Every question is asked of all in turn, round after round, in this process. The answers are compared, then the medians.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import statistics
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import chdb.session
import connectorx
import duckdb
import numpy as np
import pandas
import polars
import psycopg
import pyarrow
import pyarrow.csv
import pyarrow.parquet
from adbc_driver_postgresql import dbapi as adbc

import tapefeed
import tapefeed.arrays

HOUR = 3_600_000_000_000
SPANS = {"1 h": HOUR, "1 day": 24 * HOUR, "everything": None}
COLUMNS = ["symbol", "event_time", "price", "quantity", "side", "trade_id"]


def figure(case: str, metric: str, unit: str, value: float, peer: str, peer_value: float, goal: str, met: bool) -> None:
    print(
        json.dumps(
            {
                "bench": "history",
                "case": case,
                "metric": metric,
                "unit": unit,
                "value": round(value, 3),
                "peer": peer,
                "peer_value": round(peer_value, 3),
                "ratio": round(value / peer_value, 4),
                "goal": goal or None,
                "met": met if goal else None,
            }
        ),
        flush=True,
    )


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    answer = work()
    return time.perf_counter() - start, answer


class Databases:
    """The peers, filled with what Tapefeed has."""

    def __init__(self, client: tapefeed.Client, folder: Path, database: str | None) -> None:
        parquet = folder / "ticks.parquet"
        self.symbols, self.first, self.last, self.count = self._export(client, parquet)
        self.duck = duckdb.connect(str(folder / "ticks.duckdb"))
        seconds, _ = timed(
            lambda: self.duck.execute(
                f"CREATE TABLE ticks AS SELECT * FROM read_parquet('{parquet}') ORDER BY symbol, event_time"
            )
        )
        print_note(f"DuckDB holds {self.count} ticks after {seconds:.0f} s")
        self.house = chdb.session.Session(str(folder / "clickhouse"))
        self.house.query("CREATE DATABASE IF NOT EXISTS bench")
        self.house.query(
            "CREATE TABLE bench.ticks (symbol LowCardinality(String), event_time Int64, price Decimal(18, 2), "
            "quantity Decimal(18, 3), side UInt8, trade_id UInt64) ENGINE = MergeTree ORDER BY (symbol, event_time)"
        )
        seconds, _ = timed(
            lambda: self.house.query(f"INSERT INTO bench.ticks SELECT * FROM file('{parquet}', Parquet)")
        )
        print_note(f"ClickHouse holds them after {seconds:.0f} s")
        self.database = database
        self.rows = None
        if database is not None:
            self.rows = psycopg.connect(database, autocommit=True)
            seconds, _ = timed(lambda: self._fill_rows(parquet))
            print_note(f"Postgres holds them as rows with an index after {seconds:.0f} s")

    def _export(self, client: tapefeed.Client, parquet: Path) -> tuple[list[str], int, int, int]:
        symbols = [each.symbol for each in client.instruments()]
        first, last, count, writer = 2**63, 0, 0, None
        for symbol in symbols:
            ticks = client.read_ticks(symbol)
            times = ticks.event_time.view(np.int64)
            first, last, count = min(first, int(times[0])), max(last, int(times[-1])), count + len(ticks)
            price = tapefeed.arrays.Decimals(ticks.price.mantissa * 10 ** (ticks.price.exponent + 2), -2)
            quantity = tapefeed.arrays.Decimals(ticks.quantity.mantissa * 10 ** (ticks.quantity.exponent + 3), -3)
            table = pyarrow.table(
                {
                    "symbol": pyarrow.array([symbol]).take(pyarrow.array(np.zeros(len(ticks), dtype=np.int8))),
                    "event_time": times,
                    "price": price.to_arrow().cast(pyarrow.decimal128(18, 2)),
                    "quantity": quantity.to_arrow().cast(pyarrow.decimal128(18, 3)),
                    "side": ticks.side,
                    "trade_id": ticks.trade_id,
                }
            )
            writer = writer or pyarrow.parquet.ParquetWriter(parquet, table.schema)
            writer.write_table(table)
        assert writer is not None
        writer.close()
        return symbols, first, last, count

    def _fill_rows(self, parquet: Path) -> None:
        assert self.rows is not None
        self.rows.execute("SET maintenance_work_mem = '256MB'")
        self.rows.execute(
            "CREATE TABLE ticks (symbol text NOT NULL, event_time bigint NOT NULL, price numeric NOT NULL, "
            "quantity numeric, side smallint, trade_id bigint)"
        )
        with self.rows.cursor() as cursor, cursor.copy("COPY ticks FROM STDIN (FORMAT csv)") as copy:
            for batch in pyarrow.parquet.ParquetFile(parquet).iter_batches(200_000):
                buffer = io.BytesIO()
                options = pyarrow.csv.WriteOptions(include_header=False, quoting_style="none")
                pyarrow.csv.write_csv(pyarrow.Table.from_batches([batch]), buffer, options)
                copy.write(buffer.getvalue())
        self.rows.execute("CREATE INDEX ticks_by_time ON ticks (symbol, event_time)")
        self.rows.execute("VACUUM ANALYZE ticks")

    def answers(self) -> dict[str, Callable[[str], Any]]:
        """How each peer answers SQL with one row or many."""

        def house(sql: str) -> Any:
            lines = self.house.query(sql.replace("FROM ticks", "FROM bench.ticks"), "JSONCompactEachRow").bytes()
            return [json.loads(line, parse_float=Decimal) for line in lines.splitlines()]

        found: dict[str, Callable[[str], Any]] = {
            "DuckDB": lambda sql: self.duck.execute(sql).fetchall(),
            "ClickHouse": house,
        }
        if self.rows is not None:
            rows = self.rows
            found["Postgres rows with a btree"] = lambda sql: rows.execute(sql).fetchall()
        return found


def print_note(text: str) -> None:
    import sys

    print(text, file=sys.stderr, flush=True)


def questions(client: tapefeed.Client, databases: Databases, quick: bool) -> None:
    chance = random.Random(5)
    peers = databases.answers()
    rounds = 10 if quick else 30
    times: dict[tuple[str, str, str], list[float]] = {}
    for _ in range(rounds):
        symbol = chance.choice(databases.symbols[:20])
        for span, length in SPANS.items():
            start, end = databases.first, databases.last + 1
            if length is not None and end - length > start:
                start = chance.randrange(start, end - length)
                end = start + length
            where = f"FROM ticks WHERE symbol = '{symbol}' AND event_time >= {start} AND event_time < {end}"
            given = {"start": start, "end": end}
            asked: dict[str, tuple[Callable[[], Any], str, Callable[[Any], Any], Callable[[Any], Any]]] = {
                "mean": (
                    lambda: client.average(symbol, **given, decimals=6),
                    f"SELECT count(*), sum(price) {where}",
                    lambda ours: (ours.tick_count, ours.price_sum),
                    lambda row: (int(row[0]), Decimal(row[1])),
                ),
                "VWAP": (
                    lambda: client.average(symbol, **given, method="vwap", decimals=6),
                    f"SELECT sum(price * quantity), sum(quantity) {where}",
                    lambda ours: (ours.notional, ours.volume),
                    lambda row: (Decimal(row[0]), Decimal(row[1])),
                ),
                "statistics": (
                    lambda: client.statistics(symbol, **given, decimals=6),
                    f"SELECT count(*), min(price), max(price), sum(price), sum(quantity), sum(price * quantity) {where}",
                    lambda ours: (ours.tick_count, ours.lowest.price, ours.highest.price, ours.price_sum, ours.volume),
                    lambda row: (int(row[0]), *map(Decimal, row[1:5])),
                ),
                "last 1,000 ticks": (
                    lambda: list(client.ticks(symbol, **given, reverse=True, limit=1_000)),
                    f"SELECT event_time, price, quantity, side, trade_id {where} ORDER BY event_time DESC LIMIT 1000",
                    lambda ours: (len(ours), int(ours[0].event_time), int(ours[-1].event_time)),
                    lambda rows: (len(rows), int(rows[0][0]), int(rows[-1][0])),
                ),
            }
            for question, (ask, sql, ours_of, theirs_of) in asked.items():
                if client.statistics(symbol, **given).tick_count == 0:
                    continue
                seconds, ours = timed(ask)
                times.setdefault((question, span, "tapefeed"), []).append(seconds * 1e6)
                for peer, answer in peers.items():
                    seconds, rows = timed(lambda: answer(sql))
                    times.setdefault((question, span, peer), []).append(seconds * 1e6)
                    theirs = theirs_of(rows if question.startswith("last") else rows[0])
                    assert ours_of(ours) == theirs, (question, span, peer, ours_of(ours), theirs)
    for question, span, who in times:
        if who == "tapefeed":
            value = statistics.median(times[question, span, who])
            for peer in peers:
                theirs = statistics.median(times[question, span, peer])
                case = f"Python: {question} of {span}, one of the 20 busiest instruments"
                figure(case, "median of a call", "us", value, peer, theirs, "", False)


def frames(client: tapefeed.Client, databases: Databases, quick: bool) -> None:
    """Everything into a DataFrame, exact where the way allows it."""
    count = databases.count if quick else min(databases.count, 10_000_000)
    symbols = databases.symbols
    sql = "SELECT symbol, event_time, price, quantity, side, trade_id FROM ticks"

    def ours(kind: str, prices: tapefeed.arrays.Prices) -> int:
        parts = []
        for symbol in symbols:
            ticks = client.read_ticks(symbol)
            parts.append(ticks.to_pandas(prices=prices) if kind == "pandas" else ticks.to_polars(prices=prices))
        frame = pandas.concat(parts, ignore_index=True) if kind == "pandas" else polars.concat(parts)
        return len(frame)

    def rows() -> int:
        assert databases.rows is not None
        with databases.rows.cursor() as cursor:
            frame = pandas.DataFrame(cursor.execute(sql).fetchall(), columns=COLUMNS)
        return len(frame)

    def arrow(kind: str) -> int:
        with adbc.connect(databases.database) as connection, connection.cursor() as cursor:
            cursor.execute(sql)
            table = cursor.fetch_arrow_table()
            frame = table.to_pandas() if kind == "pandas" else polars.from_arrow(table)
        return len(frame)

    def connector(kind: str) -> int:
        return len(connectorx.read_sql(databases.database, sql, return_type=kind))

    def duck(kind: str) -> int:
        found = databases.duck.execute(sql)
        return len(found.df() if kind == "pandas" else found.pl())

    for kind in ("pandas", "polars"):
        ways: dict[str, Callable[[], int]] = {
            "tapefeed": lambda: ours(kind, "decimal"),
            "tapefeed, floats": lambda: ours(kind, "float"),
            "DuckDB in this process": lambda: duck(kind),
        }
        if databases.rows is not None:
            if kind == "pandas":
                ways["psycopg"] = rows
            ways["ADBC for Postgres"] = lambda: arrow(kind)
            ways["connectorx from Postgres"] = lambda: connector(kind)
        times: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(1 if quick else 3):
            for way, run in ways.items():
                try:
                    seconds, found = timed(run)
                except Exception as problem:  # A peer that cannot is told, and left out.
                    print_note(f"{way} into {kind}: {problem}")
                    continue
                assert found == databases.count, (way, found, databases.count)
                times[way].append(seconds)
        value = statistics.median(times["tapefeed"])
        for way, seconds in times.items():
            if way != "tapefeed" and seconds:
                theirs = statistics.median(seconds)
                goal = "at least 5x faster than clients of Postgres" if "stgres" in way or way == "psycopg" else ""
                case = f"Python: {count} ticks of {len(symbols)} instruments into {kind}, exact decimals"
                figure(case, "wall", "s", value, way, theirs, goal, theirs >= 5 * value)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--server", required=True)
    parser.add_argument("--folder", required=True, type=Path)
    parser.add_argument("--database")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    with tapefeed.Client(options.server) as client:
        databases = Databases(client, options.folder, options.database)
        questions(client, databases, options.quick)
        frames(client, databases, options.quick)


if __name__ == "__main__":
    main()
