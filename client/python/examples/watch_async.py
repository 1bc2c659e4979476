"""Watch everything that a subscription says, with asyncio.

python examples/watch_async.py http://127.0.0.1:50051 20
"""

import asyncio
import sys

import tapefeed
import tapefeed.aio


async def watch(server: str, count: int) -> None:
    async with tapefeed.aio.Client(server) as client, client.subscribe("*", flush_window="5ms") as subscription:
        async for event in subscription.events():
            match event:
                case tapefeed.Ticks():
                    for tick in event.ticks:
                        print(tick.event_time, tick.venue, tick.symbol, tick.price)
                    count -= len(event.ticks)
                case tapefeed.StreamGap() | tapefeed.SourceGap():
                    print("data is missing:", event)
                case tapefeed.Disconnected():
                    print(f"cut ({event.error}), trying again in {event.retry_in:.1f} s")
                case _:
                    print(event)
            if count <= 0:
                return


def main(server: str, count: str) -> None:
    asyncio.run(watch(server, int(count)))


if __name__ == "__main__":
    main(*sys.argv[1:])
