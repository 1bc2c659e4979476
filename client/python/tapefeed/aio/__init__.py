"""The client for asyncio: the same as `tapefeed.Client`, with the same values, events and errors.

    import tapefeed.aio

    async with tapefeed.aio.Client("http://127.0.0.1:50051") as client:
        ticks = client.ticks("AAPL", limit=100)
        async for tick in ticks:
            print(tick.event_time, tick.price)
        async for tick in client.subscribe("AAPL", cursor=ticks.as_of):
            print(tick.event_time, tick.price)

It runs in the event loop of the caller, and starts no thread of its own.
"""

from .client import Client, Listing
from .publisher import Publisher
from .reading import TickBatches
from .subscription import BarSubscription, Subscription

__all__ = ["BarSubscription", "Client", "Listing", "Publisher", "Subscription", "TickBatches"]
