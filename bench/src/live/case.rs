//! What is measured: one axis at a time from the base case.

use super::h2::Settings;

/// Which instruments each subscriber asks for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Wanted {
    /// All.
    Everything,
    /// The same few for all.
    Few(u32),
    /// So many each, and each another set.
    Sets(u32),
}

/// How far the publisher runs ahead, ours and the peers' alike.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// Not at all: every message reaches every subscriber before the next is published, so nothing can be put together.
    Turns,
    /// A batch begins at this interval, in microseconds, unless the one before it is not stored yet; 0 is back to back. A
    /// commit then comes while the one before it is still written to readers, but readers keep up.
    Every(u32),
    /// Until so many ticks are published that the slowest subscriber does not have. Ours come in batches of an eighth
    /// of them, as the server's credit allows; the peers' messages in writes of as many.
    Ahead(u64),
    /// The same, published tick by tick by so many producers, each of which has eight ticks outstanding.
    Producers(u64),
}

impl Pace {
    /// How many ticks may be on their way to the slowest subscriber.
    pub fn ahead(self) -> u64 {
        match self {
            Pace::Turns => 0,
            Pace::Every(_) => 50_000,
            Pace::Ahead(ticks) => ticks,
            Pace::Producers(count) => count * super::load::CREDIT as u64,
        }
    }
}

/// One point of an axis.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    pub name: &'static str,
    pub subscribers: usize,
    pub connections: usize,
    /// Ticks of a message: of a peer's, and of ours where nothing puts more together.
    pub ticks: usize,
    pub columns: bool,
    pub instruments: u32,
    pub wanted: Wanted,
    pub settings: Settings,
    pub flush_micros: i32,
    pub pace: Pace,
    /// Whether the peers are measured beside it. They do not filter, and do not wait.
    pub compared: bool,
}

/// Windows so large that they never matter, and the frames that HTTP/2 begins with, as hyper and Node have them.
const ROOMY: Settings = Settings { stream_window: 16 << 20, connection_window: 16 << 20, frame: 16 << 10 };

/// What grpc-js 1.14 tells a server: Node's HTTP/2.
pub const GRPC_JS: Settings = Settings { stream_window: 65_535, connection_window: 65_535, frame: 16 << 10 };

/// What grpcio 1.72 tells a server, as all that are built on the C++ core do.
const GRPC_CORE: Settings = Settings { stream_window: 4 << 20, connection_window: 4 << 20, frame: 4 << 20 };

pub const BASE: Case = Case {
    name: "base: 100 subscribers of everything on own connections, rows, 64 ticks a message, in turns",
    subscribers: 100,
    connections: 100,
    ticks: 64,
    columns: false,
    instruments: 100,
    wanted: Wanted::Everything,
    settings: ROOMY,
    flush_micros: 0,
    pace: Pace::Turns,
    compared: true,
};

/// A write for each commit and reader, and nobody waits for readers.
const BACK_TO_BACK: Case = Case { pace: Pace::Every(0), ..BASE };

/// Publishers that are ahead.
const AHEAD: Case = Case { pace: Pace::Ahead(4_096), ..BASE };

/// A million deliveries a second: 4 ticks every 400 us to 100 subscribers.
const MILLION: Case = Case { ticks: 4, columns: true, pace: Pace::Every(400), compared: false, ..BASE };

/// Many narrow subscriptions.
const NARROW: Case = Case { subscribers: 1_000, connections: 10, compared: false, ..BASE };

pub const CASES: &[Case] = &[
    BASE,
    Case { name: "columns, 64 ticks a message", columns: true, ..BASE },
    Case { name: "1 tick a message", ticks: 1, ..BASE },
    Case { name: "columns, 1 tick a message", ticks: 1, columns: true, ..BASE },
    Case { name: "commits back to back, rows, 64 ticks a message", ..BACK_TO_BACK },
    Case { name: "commits back to back, columns, 64 ticks a message", columns: true, ..BACK_TO_BACK },
    Case { name: "commits back to back, rows, 1 tick a message", ticks: 1, ..BACK_TO_BACK },
    Case { name: "commits back to back, columns, 1 tick a message", ticks: 1, columns: true, ..BACK_TO_BACK },
    Case { name: "4,096 ticks ahead, rows, 64 ticks a message", ..AHEAD },
    Case { name: "4,096 ticks ahead, columns, 64 ticks a message", columns: true, ..AHEAD },
    Case { name: "4,096 ticks ahead, rows, 1 tick a message", ticks: 1, ..AHEAD },
    Case { name: "4,096 ticks ahead, columns, 1 tick a message", ticks: 1, columns: true, ..AHEAD },
    Case {
        name: "32 producers with 8 single ticks outstanding each, columns",
        ticks: 1,
        columns: true,
        pace: Pace::Producers(32),
        ..BASE
    },
    Case { name: "a million deliveries a second, columns, no flush window", ..MILLION },
    Case { name: "a million deliveries a second, columns, flush window of 1 ms", flush_micros: 1_000, ..MILLION },
    Case { name: "a million deliveries a second, columns, flush window of 10 ms", flush_micros: 10_000, ..MILLION },
    Case { name: "16 ticks a message", ticks: 16, ..BASE },
    Case { name: "256 ticks a message", ticks: 256, ..BASE },
    Case { name: "1 subscriber", subscribers: 1, connections: 1, ..BASE },
    Case { name: "10 subscribers", subscribers: 10, connections: 10, ..BASE },
    Case { name: "1,000 subscribers", subscribers: 1_000, connections: 1_000, ..BASE },
    Case { name: "100 subscribers on 4 connections", connections: 4, compared: false, ..BASE },
    Case { name: "10 of 100 instruments each, the same", wanted: Wanted::Few(10), compared: false, ..BASE },
    Case { name: "1,000 subscribers on 10 connections, 5 of 100 instruments each", wanted: Wanted::Sets(5), ..NARROW },
    Case {
        name: "1,000 subscribers on 10 connections, 5 of 5,000 instruments each",
        wanted: Wanted::Sets(5),
        instruments: 5_000,
        ..NARROW
    },
    Case {
        name: "5,000 subscribers on 50 connections, 5 of 5,000 instruments each",
        subscribers: 5_000,
        connections: 50,
        wanted: Wanted::Sets(5),
        instruments: 5_000,
        ..NARROW
    },
    Case { name: "4,096 ticks ahead, rows, settings of grpc-js", settings: GRPC_JS, compared: false, ..AHEAD },
    Case { name: "4,096 ticks ahead, rows, settings of grpcio and C++", settings: GRPC_CORE, compared: false, ..AHEAD },
];

/// How many of [`CASES`] a quick run has.
pub const QUICK_CASES: usize = 16;
