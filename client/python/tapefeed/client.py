"""The client: history, live ticks, publishing and imports. The asyncio form is `tapefeed.aio.Client`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from time import sleep
from types import TracebackType
from typing import TYPE_CHECKING, Generic, TypeVar

import grpc

from . import _channel, _reading, _requests
from ._backlog import Backlog
from ._channel import DEFAULT_TARGET, DEFAULT_TIMEOUT
from ._reading import BATCH_SIZE, Reading
from ._upload import CHUNK_BYTES, POLL_INTERVAL, PROGRESS_INTERVAL, Upload
from .answers import (
    Average,
    Import,
    ImportProgress,
    Instrument,
    Latest,
    Method,
    Page,
    Run,
    RunState,
    Statistics,
    average_from_wire,
    instrument_from_wire,
    latest_from_wire,
    run_from_wire,
    statistics_from_wire,
)
from .bars import Bar, BarFill, MovingAverage, bar_from_wire, moving_average_from_wire
from .errors import Closed, ErrorReason, TapefeedError, error_of, unavailable
from .publisher import Publisher
from .reading import TickBatches
from .subscription import BarSubscription, Subscription
from .ticks import SelectorLike, Tick, ticks_from_wire
from .v1 import (
    history_service_pb2_grpc,
    ingest_service_pb2,
    ingest_service_pb2_grpc,
    instrument_service_pb2_grpc,
)
from .values import Cursor, CursorLike, PeriodLike, TimeLike, UnixNanos, cursor_from_wire, time_from_wire

if TYPE_CHECKING:
    from .arrays import TickArrays

__all__ = ["Client", "Listing"]

T = TypeVar("T")
Question = TypeVar("Question")
Answer = TypeVar("Answer")


class Listing(Generic[T]):
    """A list of the server: iterate it for items, asked for page by page and all answered at one position."""

    def __init__(self, fetch: Callable[[str], Page[T]], limit: int | None = None) -> None:
        self._fetch = fetch
        self._limit = limit
        self._items: Iterator[T] | None = None
        self._as_of: Cursor | None = None
        self._now: UnixNanos | None = None

    @property
    def as_of(self) -> Cursor | None:
        """The cursor at which the list is answered: subscribe after it to go on live. None before the first page."""
        return self._as_of

    @property
    def now(self) -> UnixNanos | None:
        """The server's now that a period looked back from. None before the first page, and in lists without one."""
        return self._now

    def pages(self) -> Iterator[Page[T]]:
        """Iterate over pages instead of items, each asked for when it is its turn. `limit` does not count here."""
        token = ""
        while True:
            page = self._fetch(token)
            self._as_of, self._now = page.as_of, page.now
            yield page
            token = page.next_page_token
            if not token:
                return

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        if self._items is None:
            self._items = islice((item for page in self.pages() for item in page.items), self._limit)
        return next(self._items)


class Client:
    """A client of one server, or of several over one store, for any number of threads.

    It connects at its first call. Reads are repeated while the server is unavailable: up to 4 times, with delays from
    0.1 to 2 s, within the timeout. Subscriptions, publishers and imports have connections of their own and reconnect by
    themselves. It starts no thread before the first subscription or publisher; grpc has its own.

    Args:
        target: the address of the server. Default `http://127.0.0.1:50051`. TLS is not spoken. Of several servers over
            one store, their IP addresses separated by commas: whatever ends at one goes on at another.
        timeout: seconds that a call may take, its retries included. Default 10; the server takes 60 at most.
        reconnect_delays: the shortest and longest delay in seconds before a stream connects again. Default 0.05 and 5;
            each is twice the one before, less a random part of up to a half, and never less than the server asks for.
        options: channel options of grpc, which count over those of this package.

    Raises:
        ValueError: an argument is out of its bounds, or the target is no address of servers.

    Every method that calls the server raises a TapefeedError if it is refused or fails, and TypeError or ValueError,
    before anything is sent, if an argument cannot be sent.
    """

    def __init__(
        self,
        target: str = DEFAULT_TARGET,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        reconnect_delays: tuple[float, float] = (0.05, 5.0),
        options: _channel.Options = (),
    ) -> None:
        self._settings = _channel.settings(target, timeout, reconnect_delays, options)
        self._channel = grpc.insecure_channel(
            self._settings.target(), self._settings.channel_options(own_connection=False)
        )
        self._closed = False
        self._history = history_service_pb2_grpc.HistoryServiceStub(self._channel)
        self._instruments = instrument_service_pb2_grpc.InstrumentServiceStub(self._channel)
        self._ingest = ingest_service_pb2_grpc.IngestServiceStub(self._channel)

    def close(self) -> None:
        """Close the connection of calls. Subscriptions and publishers have their own, and their own `close`."""
        self._closed = True
        self._channel.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # History.

    def ticks(
        self,
        symbol: str,
        *,
        venue: str = "",
        start: TimeLike | None = None,
        end: TimeLike | None = None,
        period: PeriodLike | None = None,
        reverse: bool = False,
        page_size: int = 0,
        limit: int | None = None,
        min_cursor: CursorLike | None = None,
    ) -> Listing[Tick]:
        """List the ticks of a symbol, ordered by (event_time, log_seq). Go on live by subscribing after its `as_of`.

        Args:
            symbol: the symbol, exactly.
            venue: the venue, exactly. Default: all venues together.
            start: the start by event time, inclusive. Default: the first tick.
            end: the end by event time, exclusive. Default: the last tick.
            period: looks back so long from the server's now instead of `start` and `end`.
            reverse: the newest first. Default: the oldest first.
            page_size: ticks in a page, at most 10,000. Default 0: 1,000.
            limit: ticks in all. Default None: all. With `reverse`, the last ones.
            min_cursor: waits until the answer includes this cursor, up to the timeout.

        Raises:
            InstrumentUnknown, RangeInverted, when the first page is asked for. An empty range is an empty list.
        """
        request = _requests.list_ticks(symbol, venue, start, end, period, reverse, page_size, limit, min_cursor)

        def fetch(token: str) -> Page[Tick]:
            request.page_token = token
            answer = self._call(self._history.ListTicks, request)
            now = time_from_wire(answer.now) if answer.HasField("now") else None
            return Page(ticks_from_wire(answer.ticks), answer.next_page_token, cursor_from_wire(answer.as_of), now)

        return Listing(fetch, limit)

    def read_ticks(
        self,
        symbol: str,
        *,
        venue: str = "",
        start: TimeLike | None = None,
        end: TimeLike | None = None,
        period: PeriodLike | None = None,
        min_cursor: CursorLike | None = None,
    ) -> TickArrays:
        """Read all ticks of a range at full speed, as numpy arrays: about 60 bytes of memory a tick.

        `.to_pandas()`, `.to_polars()` and `.to_arrow()` of the result make tables of them. Needs numpy. The timeout of
        the client does not count here; the reading goes on by itself after a cut.

        Args:
            symbol: the symbol, exactly.
            venue: the venue, exactly. Default: all venues together.
            start: the start by event time, inclusive. Default: the first tick.
            end: the end by event time, exclusive. Default: the last tick.
            period: looks back so long from the server's now instead of `start` and `end`.
            min_cursor: waits until the answer includes this cursor.

        Raises:
            InstrumentUnknown, RangeInverted. An empty range is arrays of length 0.
            ImportError: numpy is not installed.
        """
        request = _requests.read_ticks(symbol, venue, start, end, period, min_cursor)
        batches = TickBatches(self._settings, Reading(self._settings, request, _reading.WHOLE))
        return next(batches)

    def read_tick_batches(
        self,
        symbol: str,
        *,
        venue: str = "",
        start: TimeLike | None = None,
        end: TimeLike | None = None,
        period: PeriodLike | None = None,
        min_cursor: CursorLike | None = None,
        batch_size: int = BATCH_SIZE,
    ) -> TickBatches:
        """Read a range as `read_ticks` does, in batches, so that memory does not grow with the range.

        Args:
            symbol: the symbol, exactly.
            venue: the venue, exactly. Default: all venues together.
            start: the start by event time, inclusive. Default: the first tick.
            end: the end by event time, exclusive. Default: the last tick.
            period: looks back so long from the server's now instead of `start` and `end`.
            min_cursor: waits until the answer includes this cursor.
            batch_size: about how many ticks a batch has, a few thousand more at most. Default: 100,000.

        Raises:
            InstrumentUnknown, RangeInverted, when the first batch is asked for.
            ImportError: numpy is not installed.
        """
        request = _requests.read_ticks(symbol, venue, start, end, period, min_cursor)
        return TickBatches(self._settings, Reading(self._settings, request, batch_size))

    def latest(
        self, selectors: Iterable[SelectorLike] | str, *, venue: str = "", min_cursor: CursorLike | None = None
    ) -> Latest:
        """Return the newest tick of each matching instrument, with its age.

        Args:
            selectors: symbols, `*` for all, or (symbol, venue): 1 to 1,000.
            venue: the venue of selectors without one. Default: all venues.
            min_cursor: waits until the answer includes this cursor, up to the timeout.

        Raises:
            InstrumentUnknown: an exact symbol matches no instrument.
        """
        request = _requests.list_latest(selectors, venue, min_cursor)
        return latest_from_wire(self._call(self._history.ListLatestTicks, request))

    def average(
        self,
        symbol: str,
        *,
        venue: str = "",
        start: TimeLike | None = None,
        end: TimeLike | None = None,
        period: PeriodLike | None = None,
        method: Method | str = Method.MEAN,
        decimals: int | None = None,
        min_cursor: CursorLike | None = None,
    ) -> Average:
        """Return the average price of a symbol over a range, and the exact sums that it comes from.

        Args:
            symbol: the symbol, exactly.
            venue: the venue, exactly. Default: all venues together, which TWAP refuses.
            start: the start by event time, inclusive. Default: the first tick.
            end: the end by event time, exclusive. Default: the last tick.
            period: looks back so long from the server's now instead of `start` and `end`.
            method: `mean`, `vwap` or `twap`. Default: the mean.
            decimals: to how many decimals the average is rounded, half-even, 0 to 36. Default None: 9.
            min_cursor: waits until the answer includes this cursor, up to the timeout.

        Raises:
            InstrumentUnknown, RangeInverted.
            NoData: there is nothing to average.
        """
        request = _requests.average(symbol, venue, start, end, period, method, decimals, min_cursor)
        return average_from_wire(self._call(self._history.GetAveragePrice, request))

    def statistics(
        self,
        symbol: str,
        *,
        venue: str = "",
        start: TimeLike | None = None,
        end: TimeLike | None = None,
        period: PeriodLike | None = None,
        decimals: int | None = None,
        min_cursor: CursorLike | None = None,
    ) -> Statistics:
        """Return count, first, last, highest and lowest price, means and sums of a symbol over a range.

        Arguments as of `average`. A range without ticks has a count of 0 and no prices.

        Raises:
            InstrumentUnknown, RangeInverted.
        """
        request = _requests.statistics(symbol, venue, start, end, period, decimals, min_cursor)
        return statistics_from_wire(self._call(self._history.GetPriceStatistics, request))

    def bars(
        self,
        symbol: str,
        interval: PeriodLike,
        *,
        venue: str = "",
        start: TimeLike | None = None,
        end: TimeLike | None = None,
        period: PeriodLike | None = None,
        last: int | None = None,
        include_forming: bool = False,
        fill: BarFill | str = BarFill.SKIP,
        decimals: int | None = None,
        page_size: int = 0,
        min_cursor: CursorLike | None = None,
    ) -> Listing[Bar]:
        """List the bars of a symbol, the oldest first: final ones unless told otherwise.

        Args:
            symbol: the symbol, exactly.
            interval: the length of a bar: whole seconds up to a day, or days up to 366, such as `1m`. Bars begin at
                whole multiples of it since 1970 in UTC.
            venue: the venue, exactly. Default: all venues together.
            start: bars begin at or after it. Default: the first tick.
            end: bars begin before it. Default: the last tick.
            period: looks back so long from the server's now instead of `start` and `end`.
            last: only so many, the last ones, at most 100,000. Default None: all.
            include_forming: also bars that still grow.
            fill: what stands for an interval without ticks. Default: nothing.
            decimals: digits of volume-weighted means, 0 to 36, rounded half-even. Default None: 9.
            page_size: bars in a page, at most 8,000. Default 0: 1,000.
            min_cursor: waits until the answer includes this cursor, up to the timeout.

        Raises:
            InstrumentUnknown, RangeInverted, when the first page is asked for. A range without ticks is an empty list.
        """
        request = _requests.list_bars(
            symbol, interval, venue, start, end, period, last, include_forming, fill, decimals, page_size, min_cursor
        )

        def fetch(token: str) -> Page[Bar]:
            request.page_token = token
            answer = self._call(self._history.ListBars, request)
            now = time_from_wire(answer.now) if answer.HasField("now") else None
            bars = [bar_from_wire(bar) for bar in answer.bars]
            return Page(bars, answer.next_page_token, cursor_from_wire(answer.as_of), now)

        return Listing(fetch)

    def moving_averages(
        self,
        symbol: str,
        window: int,
        *,
        interval: PeriodLike | None = None,
        exponential: bool = False,
        venue: str = "",
        start: TimeLike | None = None,
        end: TimeLike | None = None,
        period: PeriodLike | None = None,
        decimals: int | None = None,
        page_size: int = 0,
        min_cursor: CursorLike | None = None,
    ) -> Listing[MovingAverage]:
        """List a mean of the last `window` prices for each tick, or each final bar, of a range, the oldest first.

        Args:
            symbol: the symbol, exactly.
            window: over how many prices, 1 to 10,000. Those before the range count; there is no point before so many.
            interval: over the closes of final bars of this length. Default: over the prices of ticks.
            exponential: the newest price weighs 2 / (window + 1), what was before the rest; it begins as the simple
                mean of the window up to the first point. Default: all weigh the same.
            venue: the venue, exactly. Default: all venues together.
            start: the start by event time, inclusive. Default: the first tick.
            end: the end by event time, exclusive. Default: the last tick.
            period: looks back so long from the server's now instead of `start` and `end`.
            decimals: digits of the averages, 0 to 36, rounded half-even. Default None: 9.
            page_size: points in a page, at most 10,000. Default 0: 1,000.
            min_cursor: waits until the answer includes this cursor, up to the timeout.

        Raises:
            InstrumentUnknown, RangeInverted, when the first page is asked for. A range without ticks is an empty list.
        """
        request = _requests.list_moving_averages(
            symbol, window, interval, exponential, venue, start, end, period, decimals, page_size, min_cursor
        )

        def fetch(token: str) -> Page[MovingAverage]:
            request.page_token = token
            answer = self._call(self._history.ListMovingAverages, request)
            now = time_from_wire(answer.now) if answer.HasField("now") else None
            points = [moving_average_from_wire(point) for point in answer.points]
            return Page(points, answer.next_page_token, cursor_from_wire(answer.as_of), now)

        return Listing(fetch)

    def instrument(self, symbol: str, *, venue: str, min_cursor: CursorLike | None = None) -> Instrument:
        """Return one instrument: its id, first and last tick, and the decimals seen.

        Raises:
            InstrumentUnknown: there is none.
        """
        request = _requests.get_instrument(symbol, venue, min_cursor)
        answer = self._call(self._instruments.GetInstrument, request)
        return instrument_from_wire(answer.instrument, answer.as_of)

    def instruments(
        self,
        symbol: str = "",
        *,
        venue: str = "",
        page_size: int = 0,
        min_cursor: CursorLike | None = None,
    ) -> Listing[Instrument]:
        """List instruments, ordered by venue and symbol in byte order.

        Args:
            symbol: the symbol, exactly. Default: all symbols.
            venue: the venue, exactly. Default: all venues.
            page_size: instruments in a page, at most 10,000. Default 0: 1,000.
            min_cursor: waits until the answer includes this cursor, up to the timeout.
        """
        request = _requests.list_instruments(symbol, venue, page_size, min_cursor)

        def fetch(token: str) -> Page[Instrument]:
            request.page_token = token
            answer = self._call(self._instruments.ListInstruments, request)
            items = [instrument_from_wire(instrument) for instrument in answer.instruments]
            return Page(items, answer.next_page_token, cursor_from_wire(answer.as_of), None)

        return Listing(fetch)

    # Live.

    def subscribe(
        self,
        *selectors: SelectorLike,
        venue: str = "",
        cursor: CursorLike | None = None,
        snapshot: bool = False,
        start: TimeLike | None = None,
        conflate: PeriodLike | None = None,
        include_backfill: bool = False,
        heartbeat: PeriodLike | None = None,
        flush_window: PeriodLike | None = None,
        if_unavailable: str = "fail",
    ) -> Subscription:
        """Subscribe to ticks: from now on, or after a cursor. The subscription reconnects and resumes by itself.

        Options that a server does not serve yet are raised as NotServed when the subscription is iterated.

        Args:
            selectors: symbols, `*` for all, or (symbol, venue): up to 10,000. Default: everything. Instruments created
                later join the stream.
            venue: the venue of selectors without one. Default: all venues.
            cursor: starts after it, exclusive: the `as_of` of an answer, the cursor of a receipt or of a subscription.
            snapshot: starts with the latest tick of each matching instrument.
            start: starts at the first entry appended at or after this time, by the store's clock.
            conflate: only the newest tick of each instrument, in rounds at least so far apart. Default: every tick.
            include_backfill: also ticks that were imported or filled in. Default: only live ones.
            heartbeat: the longest silence before a Progress, 1 to 60 s. Default: 5 s.
            flush_window: how long the server may gather ticks, 0 to 10 ms. Default: 0. 1 ms saves most of its work.
            if_unavailable: what happens if the start is older than what the server can replay: `fail`, `from_oldest`
                (after a StreamGap), or `snapshot`.
        """
        request = _requests.subscribe(
            selectors,
            venue,
            cursor,
            snapshot,
            start,
            conflate,
            include_backfill,
            heartbeat,
            flush_window,
            if_unavailable,
        )
        return Subscription(self._settings, request)

    def subscribe_bars(
        self,
        *selectors: SelectorLike,
        interval: PeriodLike,
        venue: str = "",
        cursor: CursorLike | None = None,
        snapshot: bool = False,
        include_forming: bool = False,
        min_interval: PeriodLike | None = None,
        decimals: int | None = None,
        heartbeat: PeriodLike | None = None,
        if_unavailable: str = "fail",
    ) -> BarSubscription:
        """Subscribe to bars: final ones, and their revisions by late ticks. It reconnects and resumes by itself.

        Args:
            selectors: symbols, `*` for all, or (symbol, venue): up to 10,000. Default: everything. Those without a
                venue pool all venues of each symbol.
            interval: the length of a bar, as in `bars`.
            venue: the venue of selectors without one. Default: all venues, pooled.
            cursor: starts after it, exclusive: the `as_of` of `bars`, or the cursor of a subscription to bars.
            snapshot: starts with the bars that are growing now.
            include_forming: also bars while they grow.
            min_interval: the shortest time between two messages about the same growing bar. Default: 1 s.
            decimals: digits of volume-weighted means, 0 to 36, rounded half-even. Default None: 9.
            heartbeat: the longest silence before a Progress, 1 to 60 s. Default: 5 s.
            if_unavailable: what happens if the start is older than what the server can replay: `fail`, `from_oldest`
                (after a StreamGap), or `snapshot`.
        """
        request = _requests.subscribe_bars(
            selectors,
            interval,
            venue,
            cursor,
            snapshot,
            include_forming,
            min_interval,
            decimals,
            heartbeat,
            if_unavailable,
        )
        return BarSubscription(self._settings, request)

    # Publishing.

    def publisher(
        self, producer_id: str, *, backfill: bool = False, batch_size: int = 1_000, linger: float = 0.005
    ) -> Publisher:
        """Claim a producer id and return its publisher. Tries again while the server is unavailable, up to the timeout.

        Args:
            producer_id: the name under which batches are numbered: 1 to 64 bytes of `A-Z a-z 0-9 _ -`. One publisher at
                a time holds it; a newer one ends the older with ProducerFenced.
            backfill: whether the ticks fill in history: of any age, and passed over by subscriptions that do not ask.
            batch_size: ticks in a batch at most. A batch also ends below the server's 1 MiB.
            linger: seconds that the first tick of a batch waits for others.
        """
        publisher = Publisher(self._settings, Backlog(producer_id, backfill, batch_size, linger))
        publisher._start()
        return publisher

    # Imports.

    def import_file(
        self,
        path: str | os.PathLike[str],
        *,
        progress: Callable[[ImportProgress], None] | None = None,
        run_id: str | None = None,
        format: str | None = None,
        venue: str = "",
        symbol: str = "",
        columns: Mapping[str, str] | None = None,
        time_unit: str | None = None,
        receive_time_unit: str | None = None,
        delimiter: str = "",
        max_rejects: int | None = None,
        again: bool = False,
    ) -> Import:
        """Import a file of trades: plain, gzip, or a zip with one data entry. Returns when the run has ended.

        A broken connection or an unavailable server makes it upload again, up to 10 times; the server goes on where it
        was. The same file again stores nothing. If another importer works on it, its run is waited for.

        Args:
            path: the file.
            progress: called several times a second, in the thread of the caller.
            run_id: the name of the run, 1 to 64 bytes of `A-Z a-z 0-9 _ -`. Default: a random one.
            format: `csv`, or another that the server serves. Default: recognised by the content.
            venue: the venue of all ticks. Required if the file has none, refused if it has one.
            symbol: the symbol of all ticks. Required if the file has none, refused if it has one.
            columns: the column of a field, where its name is not one of the usual: `{"price": "px"}`. The fields are
                event_time, receive_time, venue, symbol, price, quantity, side and trade_id.
            time_unit: the unit of event times that are numbers: `s`, `ms`, `us` or `ns`; or `text`. Default: it must be
                evident from the column's name, and is never guessed.
            receive_time_unit: the same of receive times.
            delimiter: the character between two columns. Default: a comma.
            max_rejects: how many lines may be rejected before the run fails. Default: 1,000; at most 1,000,000.
            again: allows the same bytes to be imported again with other options.

        Raises:
            OSError: the file cannot be read.
            FileMalformed, ImportConflict, RunExists. A run that failed on the way is not raised: look at its state.
        """
        options = _requests.import_options(
            format, venue, symbol, columns, time_unit, receive_time_unit, delimiter, max_rejects, again
        )
        upload = Upload(path, run_id, options, self._settings.backoff())
        tell = progress or (lambda _: None)
        while True:
            try:
                done = self._upload(upload, tell)
                if done is not None:
                    return done
                raise upload.elsewhere()
            except TapefeedError as error:
                delay = upload.failed(error)
            tell(upload.progress())
            sleep(delay)

    def run(self, run_id: str) -> Run:
        """Return one run of an import. Raises RunUnknown if there is none."""
        request = ingest_service_pb2.GetIngestionRunRequest(run_id=run_id)
        return run_from_wire(self._call(self._ingest.GetIngestionRun, request).run)

    def runs(self, *, state: RunState | str | None = None, page_size: int = 0) -> Listing[Run]:
        """List the runs of imports, the newest first. `state` is the one to match; default: all.

        Their rejected lines are told by `run` alone.
        """
        request = _requests.list_runs(state, page_size)

        def fetch(token: str) -> Page[Run]:
            request.page_token = token
            answer = self._call(self._ingest.ListIngestionRuns, request)
            return Page([run_from_wire(run) for run in answer.runs], answer.next_page_token, None, None)

        return Listing(fetch)

    def cancel_run(self, run_id: str) -> Run:
        """End a run, and return it as it then is. What is stored stays; a run that has ended stays as it is."""
        request = ingest_service_pb2.CancelIngestionRunRequest(run_id=run_id)
        return run_from_wire(self._call(self._ingest.CancelIngestionRun, request).run)

    def watch(self, run_id: str) -> Iterator[Run]:
        """Iterate over a run as it changes, at most 4 times a second, until its end. Reconnects by itself.

        Raises:
            RunUnknown: there is none.
        """
        backoff = self._settings.backoff()
        request = ingest_service_pb2.WatchIngestionRunRequest(run_id=run_id)
        while True:
            call = self._ingest.WatchIngestionRun(request)
            try:
                for answer in call:
                    backoff.reset()
                    run = run_from_wire(answer.run)
                    yield run
                    if run.state.is_final:
                        return
                error: TapefeedError = unavailable("the server ended the stream before the run")
            except grpc.RpcError as failure:
                error = error_of(failure)
            finally:
                call.cancel()
            if not error.is_retryable:
                raise error
            sleep(backoff.next(error.retry_delay))

    # What the methods share.

    def _call(self, method: grpc.UnaryUnaryMultiCallable[Question, Answer], request: Question) -> Answer:
        if self._closed:
            raise Closed("the client is closed")
        try:
            return method(request, timeout=self._settings.timeout)
        except grpc.RpcError as failure:
            raise error_of(failure) from None

    def _upload(self, upload: Upload, tell: Callable[[ImportProgress], None]) -> Import | None:
        """Upload once. None if another owner's run stands still."""
        options = self._settings.channel_options(own_connection=True)
        with grpc.insecure_channel(self._settings.target(), options) as channel:
            stub = ingest_service_pb2_grpc.IngestServiceStub(channel)
            call = stub.ImportFile.future(_file_requests(upload))
            try:
                answer = self._await_upload(call, upload, tell)
            except grpc.RpcError as failure:
                if upload.unreadable is not None:
                    raise upload.unreadable from None
                raise error_of(failure) from None
            finally:
                call.cancel()
        done = upload.answered(run_from_wire(answer.run), answer.duplicate)
        while done is None:
            if upload.stands_still():
                return None
            sleep(POLL_INTERVAL)
            self._look(upload, upload.run.run_id if upload.run else upload.run_id)
            tell(upload.progress())
            if upload.run is not None and upload.run.state.is_final:
                done = Import(upload.run, True)
        tell(upload.progress())
        return done

    def _await_upload(
        self,
        call: grpc.Future[ingest_service_pb2.ImportFileResponse],
        upload: Upload,
        tell: Callable[[ImportProgress], None],
    ) -> ingest_service_pb2.ImportFileResponse:
        while True:
            try:
                return call.result(timeout=PROGRESS_INTERVAL)
            except grpc.FutureTimeoutError:
                self._look(upload, upload.run_id)
                tell(upload.progress())
            except grpc.FutureCancelledError:
                # grpc cancels the call if the file cannot be read; the type of that error has no status.
                if upload.unreadable is not None:
                    raise upload.unreadable from None
                raise unavailable("the upload was cancelled") from None

    def _look(self, upload: Upload, run_id: str) -> None:
        try:
            upload.saw(self.run(run_id))
        except TapefeedError as error:
            # Not there yet, or not to be reached: it only costs the progress, for the upload itself tells the outcome.
            if not error.is_retryable and error.reason is not ErrorReason.RUN_UNKNOWN:
                raise


def _file_requests(upload: Upload) -> Iterator[ingest_service_pb2.ImportFileRequest]:
    """Yield the start and the bytes of the file, in a thread of grpc."""
    try:
        start = upload.start()
        with open(upload.path, "rb") as file:
            yield start
            while chunk := file.read(CHUNK_BYTES):
                yield ingest_service_pb2.ImportFileRequest(data=chunk)
                upload.sent_bytes += len(chunk)
    except OSError as error:
        # An end of the stream would say that the file ends here; raising makes grpc cancel the call.
        upload.unreadable = error
        raise
