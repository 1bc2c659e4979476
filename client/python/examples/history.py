"""History: ticks, latest prices, averages and statistics of one symbol.

python examples/history.py http://127.0.0.1:50051 AAPL
"""

import sys

import tapefeed


def main(server: str, symbol: str) -> None:
    with tapefeed.Client(server) as client:
        for tick in client.ticks(symbol, reverse=True, limit=3):
            print(tick.event_time, tick.venue, tick.price, tick.quantity)

        for latest in client.latest([symbol]).ticks:
            print(f"{latest.tick.venue}: {latest.tick.price}, {latest.age_nanos / 1e9:.3f} s old")

        try:
            average = client.average(symbol, period="5m", method="vwap")
            print(f"vwap {average.price} over {average.tick_count} ticks, at {average.as_of}")
        except tapefeed.NoData:
            print("nothing was traded in the last 5 minutes")

        statistics = client.statistics(symbol)
        if statistics.highest is not None:
            print(f"highest {statistics.highest.price} at {statistics.highest.event_time}")


if __name__ == "__main__":
    main(*sys.argv[1:])
