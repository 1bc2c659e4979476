"""Publish ticks, and read them back at the position of their receipt.

python examples/publish.py http://127.0.0.1:50051
"""

import sys
from decimal import Decimal

import tapefeed
from tapefeed import NewTick, UnixNanos


def main(server: str) -> None:
    with tapefeed.Client(server) as client, client.publisher("example") as publisher:
        publisher.send(
            NewTick("XETRA", "SIE", "2024-08-08T23:54:15.342000789Z", "160.5"),
            NewTick("XETRA", "SIE", UnixNanos.now(), Decimal("160.55"), 25, side="buy"),
        )
        try:
            receipt = publisher.flush()
        except tapefeed.BatchesRefused as refused:
            for batch in refused.batches:
                print("not stored:", batch.violating_ticks(), batch.violations)
            raise
        print(f"batch {receipt.batch_seq} is on disk")
        for tick in client.ticks("SIE", min_cursor=receipt.cursor):
            print(tick.event_time, tick.price)


if __name__ == "__main__":
    main(*sys.argv[1:])
