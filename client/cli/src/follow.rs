//! A subscription as it comes: rows or lines of JSON on standard output, notices on standard error.

use serde::Serialize;
use tapefeed_client::{Bar, Cursor, Event, Selector, SelectorStatus, SubscriptionStream, Tick, UnixNanos};

use crate::bars::{BarLine, bar_row};
use crate::failure::Failure;
use crate::lines::{TickLine, tick_row};
use crate::output::{Output, count, notice};
use crate::table::Table;
use crate::time::{short, short_duration};

/// How many symbols a notice names before it only counts.
const NAMED_SYMBOLS: usize = 5;

/// An event that is no tick, as a line of JSON.
#[derive(Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum EventLine<'a> {
    Ack {
        server_name: &'a str,
        stream_id: &'a str,
        epoch: u64,
        head_log_seq: u64,
        cursor: Option<String>,
    },
    Progress {
        log_seq: u64,
        server_time: String,
        cursor: Option<String>,
    },
    SnapshotBegin {
        log_seq: u64,
        tick_count: u32,
    },
    SnapshotEnd {
        log_seq: u64,
        without_data: Vec<String>,
        cursor: Option<String>,
    },
    IntervalComplete {
        start_time: String,
        end_time: String,
        cursor: Option<String>,
    },
    ReplayCompleted {
        log_seq: u64,
    },
    SourceGap {
        source: &'a str,
        venue: &'a str,
        symbols: &'a [String],
        start_time: Option<String>,
        end_time: Option<String>,
        first_source_seq: Option<u64>,
        last_source_seq: Option<u64>,
        cause: &'static str,
        recoverable: bool,
        detail: &'a str,
        log_seq: u64,
    },
    SourceGapFilled {
        source: &'a str,
        venue: &'a str,
        symbols: &'a [String],
        start_time: Option<String>,
        end_time: Option<String>,
        gap_log_seq: Option<u64>,
        log_seq: u64,
    },
    SourceStatus {
        source: &'a str,
        venue: &'a str,
        symbols: &'a [String],
        up: bool,
        change_time: Option<String>,
        detail: &'a str,
        log_seq: u64,
    },
    StreamGap {
        from_log_seq: u64,
        to_log_seq: u64,
        cause: &'static str,
    },
    SlowConsumer {
        catching_up: bool,
        lag_ticks: u64,
        expiring: bool,
    },
    Disconnected {
        error: String,
        attempt: u32,
    },
    Reconnected {
        attempts: u32,
        cursor: Option<String>,
    },
}

/// Ctrl-C, or a polite request to end.
async fn stop_signal() {
    let terminate = async {
        #[cfg(unix)]
        if let Ok(mut signal) = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            signal.recv().await;
            return;
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        // Without a handler the signal ends the program, which is what it asks for.
        _ = tokio::signal::ctrl_c() => {}
        () = terminate => {}
    }
}

/// A running subscription, shown line by line.
pub(crate) struct Follow<'a> {
    stream: SubscriptionStream,
    output: &'a mut Output,
    table: Table,
    headed: bool,
    left: u64,
    connected_before: bool,
    tells_where: bool,
}

impl<'a> Follow<'a> {
    /// Shows ticks or bars in a table of their kind, until Ctrl-C.
    pub(crate) fn new(stream: SubscriptionStream, output: &'a mut Output, table: Table) -> Follow<'a> {
        let left = u64::MAX;
        Follow { stream, output, table, headed: false, left, connected_before: false, tells_where: false }
    }

    /// The table's header is shown already.
    pub(crate) fn headed(self, headed: bool) -> Follow<'a> {
        Follow { headed, ..self }
    }

    /// At most so many ticks.
    pub(crate) fn limited(self, left: u64) -> Follow<'a> {
        Follow { left, ..self }
    }

    /// Ctrl-C tells where to go on.
    pub(crate) fn telling_where(self) -> Follow<'a> {
        Follow { tells_where: true, ..self }
    }

    /// Shows events until the end, the limit or Ctrl-C.
    pub(crate) async fn run(mut self) -> Result<(), Failure> {
        let mut stop = std::pin::pin!(stop_signal());
        loop {
            let next = tokio::select! {
                biased;
                () = &mut stop => {
                    self.output.flush()?;
                    return self.say_where();
                }
                next = self.stream.next() => next,
            };
            let Some(event) = next else { return Ok(()) };
            self.show(event?)?;
            if self.left == 0 {
                return Ok(());
            }
        }
    }

    fn show(&mut self, event: Event) -> Result<(), Failure> {
        if let Event::Disconnected { error, .. } = &event
            && !self.connected_before
        {
            return Err(error.clone().into());
        }
        self.connected_before = true;
        match event {
            Event::Ticks { mut ticks, cursor } => {
                let room = usize::try_from(self.left).unwrap_or(usize::MAX);
                // A cut inside a message has no cursor of its own.
                let cursor = cursor.filter(|_| ticks.len() <= room);
                ticks.truncate(room);
                self.left -= ticks.len() as u64;
                self.ticks(&ticks, cursor.as_ref())?;
            }
            Event::Bars { bars, cursor } => self.bars(&bars, cursor.as_ref())?,
            event if self.output.is_json() => self.event_line(&event)?,
            event => self.event_notice(&event)?,
        }
        // What has come must be seen, even if nothing follows for a while.
        self.output.flush()?;
        Ok(())
    }

    fn ticks(&mut self, ticks: &[Tick], cursor: Option<&Cursor>) -> Result<(), Failure> {
        if self.output.is_json() {
            for (index, tick) in ticks.iter().enumerate() {
                let cursor = cursor.filter(|_| index + 1 == ticks.len());
                self.output.object(&TickLine::new(tick, cursor))?;
            }
            return Ok(());
        }
        self.rows(ticks.iter().map(tick_row))
    }

    fn bars(&mut self, bars: &[Bar], cursor: Option<&Cursor>) -> Result<(), Failure> {
        if self.output.is_json() {
            for (index, bar) in bars.iter().enumerate() {
                let cursor = cursor.filter(|_| index + 1 == bars.len());
                self.output.object(&BarLine::new(bar, cursor))?;
            }
            return Ok(());
        }
        self.rows(bars.iter().map(bar_row))
    }

    fn rows(&mut self, rows: impl Iterator<Item = Vec<String>>) -> Result<(), Failure> {
        rows.for_each(|row| self.table.row(row));
        if !self.headed {
            self.headed = true;
            self.output.line(&self.table.header())?;
        }
        self.output.rows(&mut self.table)?;
        Ok(())
    }

    fn event_line(&mut self, event: &Event) -> Result<(), Failure> {
        let cursor = self.stream.cursor().map(Cursor::to_string);
        let time = |time: &Option<UnixNanos>| time.map(|time| time.to_string());
        let line = match event {
            Event::Ack(ack) => EventLine::Ack {
                server_name: &ack.server_name,
                stream_id: &ack.stream_id,
                epoch: ack.epoch,
                head_log_seq: ack.head_log_seq,
                cursor,
            },
            Event::Progress { log_seq, server_time, cursor } => EventLine::Progress {
                log_seq: *log_seq,
                server_time: server_time.to_string(),
                cursor: cursor.as_ref().map(Cursor::to_string),
            },
            Event::SnapshotBegin { log_seq, tick_count } => {
                EventLine::SnapshotBegin { log_seq: *log_seq, tick_count: *tick_count }
            }
            Event::SnapshotEnd { log_seq, without_data } => {
                let without_data = without_data.iter().map(selected).collect();
                EventLine::SnapshotEnd { log_seq: *log_seq, without_data, cursor }
            }
            Event::IntervalComplete { start, end, cursor } => EventLine::IntervalComplete {
                start_time: start.to_string(),
                end_time: end.to_string(),
                cursor: cursor.as_ref().map(Cursor::to_string),
            },
            Event::ReplayCompleted { log_seq } => EventLine::ReplayCompleted { log_seq: *log_seq },
            Event::SourceGap(gap) => EventLine::SourceGap {
                source: &gap.source,
                venue: &gap.venue,
                symbols: &gap.symbols,
                start_time: time(&gap.start_time),
                end_time: time(&gap.end_time),
                first_source_seq: gap.first_source_seq,
                last_source_seq: gap.last_source_seq,
                cause: gap.cause.as_str(),
                recoverable: gap.recoverable,
                detail: &gap.detail,
                log_seq: gap.log_seq,
            },
            Event::SourceGapFilled(filled) => EventLine::SourceGapFilled {
                source: &filled.source,
                venue: &filled.venue,
                symbols: &filled.symbols,
                start_time: time(&filled.start_time),
                end_time: time(&filled.end_time),
                gap_log_seq: filled.gap_log_seq,
                log_seq: filled.log_seq,
            },
            Event::SourceStatus(status) => EventLine::SourceStatus {
                source: &status.source,
                venue: &status.venue,
                symbols: &status.symbols,
                up: status.up,
                change_time: time(&status.change_time),
                detail: &status.detail,
                log_seq: status.log_seq,
            },
            Event::StreamGap { from_log_seq, to_log_seq, cause } => {
                EventLine::StreamGap { from_log_seq: *from_log_seq, to_log_seq: *to_log_seq, cause: cause.as_str() }
            }
            Event::SlowConsumer { catching_up, lag_ticks, expiring, .. } => {
                EventLine::SlowConsumer { catching_up: *catching_up, lag_ticks: *lag_ticks, expiring: *expiring }
            }
            Event::Disconnected { error, attempt, .. } => {
                EventLine::Disconnected { error: error.to_string(), attempt: *attempt }
            }
            Event::Reconnected { attempts, resumed_after } => {
                EventLine::Reconnected { attempts: *attempts, cursor: resumed_after.as_ref().map(Cursor::to_string) }
            }
            _ => return Ok(()),
        };
        self.output.object(&line)?;
        Ok(())
    }

    /// Tells people what they should know; heartbeats are not among it.
    fn event_notice(&mut self, event: &Event) -> Result<(), Failure> {
        self.output.flush()?;
        let time = |time: &Option<UnixNanos>| time.map_or("?".to_owned(), short);
        let text = match event {
            Event::Ack(ack) => {
                for result in &ack.selector_results {
                    let symbol = result.selector.symbol_name();
                    match result.status {
                        SelectorStatus::Unknown if symbol != "*" => {
                            notice(&format!("{symbol} is not known yet, waiting for it"))?;
                        }
                        SelectorStatus::NotPermitted => {
                            notice(&format!("{symbol}: not permitted"))?;
                        }
                        SelectorStatus::Limit => {
                            notice(&format!("{symbol}: left out, a limit of the server is reached"))?;
                        }
                        _ => {}
                    }
                }
                return Ok(());
            }
            Event::SnapshotEnd { without_data, .. } if !without_data.is_empty() => {
                let symbols: Vec<String> = without_data.iter().map(selected).collect();
                format!("no ticks yet of {}", few(&symbols))
            }
            Event::SourceGap(gap) => format!(
                "{} lost data on {} from {} to {}: {}{}{}",
                gap.source,
                place(&gap.venue, &gap.symbols),
                time(&gap.start_time),
                time(&gap.end_time),
                gap.cause.as_str(),
                if gap.recoverable { ", may come back" } else { "" },
                remark(&gap.detail),
            ),
            Event::SourceGapFilled(filled) => format!(
                "{} got lost data on {} back, from {} to {}",
                filled.source,
                place(&filled.venue, &filled.symbols),
                time(&filled.start_time),
                time(&filled.end_time),
            ),
            Event::SourceStatus(status) => {
                let state = if status.up { "up" } else { "down: silence says nothing about the market" };
                let place = place(&status.venue, &status.symbols);
                format!("{} on {place} is {state}{}", status.source, remark(&status.detail))
            }
            Event::StreamGap { from_log_seq, to_log_seq, cause } => {
                let cause = cause.as_str();
                format!("positions {from_log_seq} to {to_log_seq} are missing: {cause}")
            }
            Event::SlowConsumer { expiring: true, lag_ticks, .. } => {
                let ticks = count(*lag_ticks, "tick", "ticks");
                format!("{ticks} behind, and the next of them are about to leave the log")
            }
            Event::SlowConsumer { catching_up: true, lag_ticks, lag, .. } => {
                let lag = i64::try_from(lag.as_nanos()).unwrap_or(i64::MAX);
                let ticks = count(*lag_ticks, "tick", "ticks");
                format!("catching up: {ticks}, {} behind", short_duration(lag))
            }
            Event::SlowConsumer { catching_up: false, .. } => "caught up".to_owned(),
            Event::Disconnected { error, attempt: 1, .. } => {
                format!("disconnected: {error}; trying again until the server is back")
            }
            Event::Reconnected { .. } => "connected again, nothing is lost".to_owned(),
            _ => return Ok(()),
        };
        notice(&text)?;
        Ok(())
    }

    fn say_where(&self) -> Result<(), Failure> {
        if let Some(cursor) = self.stream.cursor().filter(|_| self.tells_where) {
            notice(&format!("to go on from here: --from-cursor {cursor}"))?;
        }
        Ok(())
    }
}

/// A venue, and its symbols if it is not about all of them.
fn place(venue: &str, symbols: &[String]) -> String {
    if symbols.is_empty() { venue.to_owned() } else { format!("{venue} ({})", few(symbols)) }
}

/// The first of several names, and how many there are beside.
fn few(names: &[String]) -> String {
    let named = names[..names.len().min(NAMED_SYMBOLS)].join(", ");
    match names.len().saturating_sub(NAMED_SYMBOLS) {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}

/// What the source says about it.
fn remark(detail: &str) -> String {
    if detail.is_empty() { String::new() } else { format!(" ({detail})") }
}

/// A selector as people write it.
fn selected(selector: &Selector) -> String {
    match selector.venue_name() {
        "" => selector.symbol_name().to_owned(),
        venue => format!("{venue}:{}", selector.symbol_name()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notices_name_a_few_symbols_and_count_the_rest() {
        let names: Vec<String> = (1..=7).map(|number| format!("S{number}")).collect();
        assert_eq!(place("V", &[]), "V");
        assert_eq!(place("V", &names[..2]), "V (S1, S2)");
        assert_eq!(place("V", &names), "V (S1, S2, S3, S4, S5 and 2 more)");
        assert_eq!((remark(""), remark("why")), (String::new(), " (why)".to_owned()));
    }
}
