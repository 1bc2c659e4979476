"""Ten million ticks into a DataFrame."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import connectorx
import pandas
import polars
import pyarrow
import tapefeed
import tapefeed.arrays
from adbc_driver_postgresql import dbapi as adbc
from figures import figure, note, timed
from peers import Databases

COLUMNS = ["symbol", "event_time", "price", "quantity", "side", "trade_id"]

ADBC = "ADBC for Postgres"
CONNECTORX = "connectorx from Postgres"

# What is read at most: rows of Postgres become objects of Python, half a kilobyte each.
MOST = 10_000_000


def some(client: tapefeed.Client, symbols: list[str]) -> tuple[list[str], int]:
    """Choose instruments with so many ticks together at most, and count them."""
    chosen, count = [], 0
    for symbol in symbols:
        own = client.statistics(symbol).tick_count
        if count + own <= MOST:
            chosen.append(symbol)
            count += own
    return chosen, count


def run(client: tapefeed.Client, databases: Databases, quick: bool) -> None:
    """Read them with each way in turn, exact where it allows that."""
    symbols, count = some(client, databases.symbols)
    names = ", ".join(f"'{symbol}'" for symbol in symbols)
    sql = f"SELECT symbol, event_time, price, quantity, side, trade_id FROM ticks WHERE symbol IN ({names})"

    def ours(kind: str, prices: tapefeed.arrays.Prices) -> int:
        tables = pyarrow.concat_tables([client.read_ticks(symbol).to_arrow(prices=prices) for symbol in symbols])
        # Without a copy: the frames hold the columns as they came.
        frame = tables.to_pandas(types_mapper=pandas.ArrowDtype) if kind == "pandas" else polars.from_arrow(tables)
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
        assert databases.database is not None
        return len(connectorx.read_sql(databases.database, sql, return_type=kind))

    def duck(kind: str) -> int:
        found = databases.duck.sql(sql)
        return len(found.df() if kind == "pandas" else polars.from_arrow(found.to_arrow_table()))

    for kind in ("pandas", "polars"):
        ways: dict[str, Callable[[], int]] = {
            "tapefeed": lambda: ours(kind, "decimal"),
            "tapefeed, floats": lambda: ours(kind, "float"),
            "DuckDB in this process": lambda: duck(kind),
        }
        if databases.rows is not None:
            if kind == "pandas":
                ways["psycopg"] = rows
            ways[ADBC] = lambda: arrow(kind)
            ways[CONNECTORX] = lambda: connector(kind)
        # What is exact is compared with what is exact, as far as the goal goes: connectorx makes floats of numerics.
        postgres, floats = ("psycopg", ADBC, CONNECTORX), (CONNECTORX,)
        times: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(1 if quick else 3):
            for way, run in ways.items():
                try:
                    seconds, found = timed(run)
                except Exception as problem:  # A peer that cannot is told, and left out.
                    note(f"{way} into {kind}: {problem}")
                    continue
                assert found == count, (way, found, count)
                times[way].append(seconds)
        for own, numbers in (("tapefeed", "exact decimals"), ("tapefeed, floats", "floats")):
            if not times[own]:
                continue
            value = statistics.median(times[own])
            case = f"Python: {count} ticks of {len(symbols)} instruments into {kind}, {numbers}"
            for way, taken in times.items():
                if way.startswith("tapefeed") or not taken:
                    continue
                theirs = statistics.median(taken)
                goal = None
                if way in postgres and (way in floats) == (numbers == "floats"):
                    goal = ("at least 5x faster than clients of Postgres", theirs >= 5 * value)
                figure(case, "wall", "s", value, (way, theirs), goal)
