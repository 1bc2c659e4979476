"""Follow a symbol: its history, and then live without a hole. Started again, it goes on where it was.

python examples/follow.py http://127.0.0.1:50051 AAPL cursor.txt 10
"""

import sys
from pathlib import Path

import tapefeed


def main(server: str, symbol: str, cursor_file: str, count: str) -> None:
    stored = Path(cursor_file)
    left = int(count)
    with tapefeed.Client(server) as client:
        if stored.exists():
            cursor = tapefeed.Cursor.parse(stored.read_text())
        else:
            ticks = client.ticks(symbol)
            print(f"{sum(1 for _ in ticks)} ticks so far")
            assert ticks.as_of is not None, "the list has been read"
            cursor = ticks.as_of
        with client.subscribe(symbol, cursor=cursor) as subscription:
            for tick in subscription:
                print(tick.event_time, tick.price)
                # After a crash between these two lines this one tick comes again; store both in one transaction.
                stored.write_text(str(subscription.cursor))
                left -= 1
                if not left:
                    break


if __name__ == "__main__":
    main(*sys.argv[1:])
