"""The databases beside Tapefeed, each with the same ticks."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import chdb.session
import duckdb
import numpy as np
import psycopg
import pyarrow
import pyarrow.csv
import pyarrow.parquet
import tapefeed
import tapefeed.arrays
from figures import figure, note, timed

DUCKDB = "DuckDB"
CLICKHOUSE = "ClickHouse"
POSTGRES = "Postgres rows with a btree"


class Databases:
    """The peers, filled with what Tapefeed has."""

    def __init__(self, client: tapefeed.Client, folder: Path, database: str | None) -> None:
        parquet = folder / "ticks.parquet"
        self.symbols, self.first, self.last, self.count = self._export(client, parquet)
        self._folder = folder
        self.duck = duckdb.connect(str(folder / "ticks.duckdb"))
        seconds, _ = timed(
            lambda: self.duck.execute(
                f"CREATE TABLE ticks AS SELECT * FROM read_parquet('{parquet}') ORDER BY symbol, event_time"
            )
        )
        self.duck.execute("CHECKPOINT")
        note(f"DuckDB holds {self.count} ticks after {seconds:.0f} s")
        self.house = chdb.session.Session(str(folder / "clickhouse"))
        self.house.query("CREATE DATABASE IF NOT EXISTS bench")
        self.house.query(
            "CREATE TABLE bench.ticks (symbol LowCardinality(String), event_time Int64, price Decimal(18, 2), "
            "quantity Decimal(18, 3), side UInt8, trade_id UInt64) ENGINE = MergeTree ORDER BY (symbol, event_time)"
        )
        seconds, _ = timed(
            lambda: self.house.query(f"INSERT INTO bench.ticks SELECT * FROM file('{parquet}', Parquet)")
        )
        self.house.query("OPTIMIZE TABLE bench.ticks FINAL")
        note(f"ClickHouse holds them after {seconds:.0f} s")
        self.database = database
        self.rows = None
        if database is not None:
            self.rows = psycopg.connect(database, autocommit=True)
            seconds, _ = timed(lambda: self._fill_rows(parquet))
            note(f"Postgres holds them as rows with an index after {seconds:.0f} s")

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

    def print_sizes(self) -> None:
        """Print what a tick takes in each of them; without receive times and positions, which only Tapefeed keeps."""
        parts = "SELECT sum(bytes_on_disk) FROM system.parts WHERE active AND database = 'bench'"
        house = int(self.house.query(parts, "TSV").bytes())
        sizes = {DUCKDB: (self._folder / "ticks.duckdb").stat().st_size, CLICKHOUSE: house}
        if self.rows is not None:
            row = self.rows.execute("SELECT pg_total_relation_size('ticks')").fetchone()
            assert row is not None
            sizes[POSTGRES] = row[0]
        for peer, size in sizes.items():
            figure(f"{peer}: six columns of a tick", "stored", "B/tick", size / self.count, None, None)

    def answers(self) -> dict[str, Callable[[str], Any]]:
        """How each peer answers SQL with one row or many."""

        def house(sql: str) -> Any:
            lines = self.house.query(sql.replace("FROM ticks", "FROM bench.ticks"), "JSONCompactEachRow").bytes()
            return [json.loads(line, parse_float=Decimal) for line in lines.splitlines()]

        found: dict[str, Callable[[str], Any]] = {
            DUCKDB: lambda sql: self.duck.execute(sql).fetchall(),
            CLICKHOUSE: house,
        }
        if self.rows is not None:
            rows = self.rows
            found[POSTGRES] = lambda sql: rows.execute(sql).fetchall()
        return found
