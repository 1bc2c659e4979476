"""Questions about one instrument, asked of all in turn."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable
from decimal import Decimal
from typing import Any, NamedTuple

import tapefeed
from figures import figure, timed
from peers import CLICKHOUSE, DUCKDB, POSTGRES, Databases

HOUR = 3_600_000_000_000
MINUTE = HOUR // 60
SPANS = {"1 h": HOUR, "1 day": 24 * HOUR, "everything": None}

# How each dialect says what the first and the last price of a group are.
OPEN_AND_CLOSE = {
    DUCKDB: "arg_min(price, event_time), arg_max(price, event_time)",
    CLICKHOUSE: "argMin(price, event_time), argMax(price, event_time)",
    POSTGRES: "(array_agg(price ORDER BY event_time))[1], (array_agg(price ORDER BY event_time DESC))[1]",
}
MINUTES = {
    DUCKDB: f"event_time // {MINUTE}",
    CLICKHOUSE: f"intDiv(event_time, {MINUTE})",
    POSTGRES: f"event_time / {MINUTE}",
}


class Question(NamedTuple):
    """A question, how it is asked, and what of the answers is compared."""

    ask: Callable[[], Any]
    sql: dict[str, str]
    ours: Callable[[Any], Any]
    theirs: Callable[[Any], Any]


def same(sql: str) -> dict[str, str]:
    """The same words for all."""
    return dict.fromkeys((DUCKDB, CLICKHOUSE, POSTGRES), sql)


def asked(client: tapefeed.Client, symbol: str, start: int, end: int, where: str) -> dict[str, Question]:
    given: dict[str, Any] = {"start": start, "end": end}
    found = {
        "mean": Question(
            lambda: client.average(symbol, **given, decimals=6),
            same(f"SELECT count(*), sum(price) {where}"),
            lambda ours: (ours.tick_count, ours.price_sum),
            lambda rows: (int(rows[0][0]), Decimal(rows[0][1])),
        ),
        "VWAP": Question(
            lambda: client.average(symbol, **given, method="vwap", decimals=6),
            same(f"SELECT sum(price * quantity), sum(quantity) {where}"),
            lambda ours: (ours.notional, ours.volume),
            lambda rows: (Decimal(rows[0][0]), Decimal(rows[0][1])),
        ),
        "statistics": Question(
            lambda: client.statistics(symbol, **given, decimals=6),
            same(f"SELECT count(*), min(price), max(price), sum(price), sum(quantity), sum(price * quantity) {where}"),
            lambda ours: (ours.tick_count, ours.lowest.price, ours.highest.price, ours.price_sum, ours.volume),
            lambda rows: (int(rows[0][0]), *map(Decimal, rows[0][1:5])),
        ),
        "last 1,000 ticks": Question(
            lambda: list(client.ticks(symbol, **given, reverse=True, limit=1_000)),
            same(f"SELECT event_time, price, quantity, side, trade_id {where} ORDER BY event_time DESC LIMIT 1000"),
            lambda ours: (len(ours), int(ours[0].event_time), int(ours[-1].event_time)),
            lambda rows: (len(rows), int(rows[0][0]), int(rows[-1][0])),
        ),
    }
    if end - start == SPANS["1 day"]:
        sums = "max(price), min(price), sum(quantity), sum(price * quantity), count(*)"
        found["1-minute bars"] = Question(
            lambda: list(client.bars(symbol, "1m", **given, include_forming=True, page_size=8_000)),
            {
                peer: f"SELECT {MINUTES[peer]} AS minute, {ends}, {sums} {where} GROUP BY minute ORDER BY minute"
                for peer, ends in OPEN_AND_CLOSE.items()
            },
            # Which of several ticks at one time opens or closes, SQL does not say.
            lambda bars: [(int(bar.start) // MINUTE, bar.high, bar.low, bar.volume, bar.tick_count) for bar in bars],
            lambda rows: [(int(r[0]), Decimal(r[3]), Decimal(r[4]), Decimal(r[5]), int(r[7])) for r in rows],
        )
    return found


def run(client: tapefeed.Client, databases: Databases, quick: bool) -> None:
    chance = random.Random(5)
    peers = databases.answers()
    times: dict[tuple[str, str, str], list[float]] = {}
    for _ in range(10 if quick else 30):
        symbol = chance.choice(databases.symbols[:20])
        for span, length in SPANS.items():
            start, end = databases.first, databases.last + 1
            if length is not None and end - length > start:
                start = chance.randrange(start, end - length) // MINUTE * MINUTE
                end = start + length
            if client.statistics(symbol, start=start, end=end).tick_count == 0:
                continue
            where = f"FROM ticks WHERE symbol = '{symbol}' AND event_time >= {start} AND event_time < {end}"
            for name, question in asked(client, symbol, start, end, where).items():
                seconds, answer = timed(question.ask)
                times.setdefault((name, span, "tapefeed"), []).append(seconds * 1e6)
                ours = question.ours(answer)
                for peer, answer_of in peers.items():
                    seconds, rows = timed(answer_of, question.sql[peer])
                    times.setdefault((name, span, peer), []).append(seconds * 1e6)
                    theirs = question.theirs(rows)
                    assert ours == theirs, (name, span, peer, ours, theirs)
    for name, span, who in times:
        if who == "tapefeed":
            value = statistics.median(times[name, span, who])
            for peer in peers:
                theirs = statistics.median(times[name, span, peer])
                case = f"Python: {name} of {span}, one of the 20 busiest instruments"
                figure(case, "median of a call", "us", value, (peer, theirs), None)
