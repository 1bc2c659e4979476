"""Channels: where the server is, and how connections to it are set up. The same for sync and asyncio."""

from __future__ import annotations

import ipaddress
import json
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, Final

from ._backoff import Backoff
from ._version import __version__

DEFAULT_TARGET: Final = "http://127.0.0.1:50051"

DEFAULT_TIMEOUT: Final = 10.0
"""Seconds that a unary call may take, its retries included. The server takes 60 s at most."""

Options = Sequence[tuple[str, Any]]

_CONNECT_TIMEOUT_MS: Final = 5_000
# Servers count pings that come more often as abuse.
_KEEPALIVE_TIME_MS: Final = 20_000
_KEEPALIVE_TIMEOUT_MS: Final = 10_000
# The server sends at most 4 MiB.
_MAX_MESSAGE_BYTES: Final = 8 * 1024 * 1024
# With HTTP/2's 64 KiB a stream of 64 KiB messages waits a round trip for each.
_STREAM_WINDOW_BYTES: Final = 2 * 1024 * 1024

# gRPC repeats no stream once its first answer has come, so only reads and idempotent calls are here; streams,
# publishers and imports reconnect in this package.
_SERVICE_CONFIG: Final = json.dumps(
    {
        "methodConfig": [
            {
                "name": [
                    {"service": "tapefeed.v1.HistoryService"},
                    {"service": "tapefeed.v1.InstrumentService"},
                    {"service": "tapefeed.v1.IngestService", "method": "GetIngestionRun"},
                    {"service": "tapefeed.v1.IngestService", "method": "ListIngestionRuns"},
                    {"service": "tapefeed.v1.IngestService", "method": "CancelIngestionRun"},
                ],
                "retryPolicy": {
                    "maxAttempts": 4,
                    "initialBackoff": "0.1s",
                    "maxBackoff": "2s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            }
        ]
    }
)


@dataclass(frozen=True)
class Settings:
    """How a client was set up."""

    addresses: tuple[str, ...]
    timeout: float
    delays: tuple[float, float]
    options: tuple[tuple[str, Any], ...]
    turns: Iterator[int]

    def target(self) -> str:
        """Return where the next channel connects to: one server, or several in the order in which they are tried.

        Each channel begins with the server after the one before, so that a stream whose server ended, or hangs, goes on
        at another.
        """
        if len(self.addresses) == 1:
            return self.addresses[0]
        first = next(self.turns) % len(self.addresses)
        kind = "ipv6" if self.addresses[0].startswith("[") else "ipv4"
        return f"{kind}:" + ",".join(self.addresses[first:] + self.addresses[:first])

    def backoff(self) -> Backoff:
        """Return new delays between attempts of a stream."""
        return Backoff(*self.delays)

    def channel_options(self, *, own_connection: bool) -> list[tuple[str, Any]]:
        """Return the options of a channel; one with a connection of its own shares it with no other channel."""
        options: list[tuple[str, Any]] = [
            ("grpc.primary_user_agent", f"tapefeed-python/{__version__}"),
            ("grpc.service_config", _SERVICE_CONFIG),
            ("grpc.enable_retries", 1),
            ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
            ("grpc.keepalive_time_ms", _KEEPALIVE_TIME_MS),
            ("grpc.keepalive_timeout_ms", _KEEPALIVE_TIMEOUT_MS),
            ("grpc.http2.max_pings_without_data", 0),
            ("grpc.http2.lookahead_bytes", _STREAM_WINDOW_BYTES),
            ("grpc.http2.bdp_probe", 1),
            # The lower bound of the back-off is also how long a connect may take.
            ("grpc.min_reconnect_backoff_ms", _CONNECT_TIMEOUT_MS),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 2_000),
        ]
        if own_connection:
            options.append(("grpc.use_local_subchannel_pool", 1))
        if len(self.addresses) > 1:
            # By itself grpc would send the whole list, which is no authority.
            options.append(("grpc.default_authority", self.addresses[0]))
        if all(map(_is_this_machine, self.addresses)):
            # A proxy of the environment cannot reach what listens here.
            options.append(("grpc.enable_http_proxy", 0))
        # What the caller gives comes last and counts.
        return options + list(self.options)


def settings(target: str, timeout: float, delays: tuple[float, float], options: Options) -> Settings:
    """Check how a client is to be set up. ValueError if the target is no address of a server."""
    if timeout <= 0:
        raise ValueError(f"timeout={timeout!r}: give seconds above 0")
    if not 0 < delays[0] <= delays[1]:
        raise ValueError(f"reconnect_delays={delays!r}: give the shortest and the longest in seconds")
    addresses = tuple(_address(address.strip()) for address in target.split(","))
    if len(addresses) > 1:
        _check_literals(addresses)
    return Settings(addresses, timeout, delays, tuple(options), count(random.randrange(len(addresses))))


def _check_literals(addresses: tuple[str, ...]) -> None:
    """Raise ValueError unless all are numbers of one kind: a name may stand for several servers by itself."""
    try:
        versions = {ipaddress.ip_address(address.rpartition(":")[0].strip("[]")).version for address in addresses}
    except ValueError:
        raise ValueError(
            f"{', '.join(addresses)}: of several servers give the IP addresses, or one name that stands for all of them"
        ) from None
    if len(versions) > 1:
        raise ValueError(f"{', '.join(addresses)}: of several servers give all addresses as IPv4, or all as IPv6")


def _address(target: str) -> str:
    if target.startswith("https://"):
        raise ValueError(f"{target!r}: this client speaks plain HTTP/2, without TLS; write http://127.0.0.1:50051")
    address = target.removeprefix("http://").rstrip("/")
    if not re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):\d{1,5}", address):
        raise ValueError(f"{target!r} is not the address of a server: write it as http://127.0.0.1:50051")
    return address


def _is_this_machine(address: str) -> bool:
    host = address.rpartition(":")[0]
    return host == "localhost" or host == "[::1]" or host.startswith("127.")
