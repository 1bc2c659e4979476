//! What a person sees first: what listens where, what is kept where, and lines to paste.

use std::fmt::Write as _;

use crate::app::App;
use crate::config::ServeConfig;

/// The banner of a running server.
pub fn banner(app: &App, config: &ServeConfig) -> String {
    let (address, store) = (app.address, &app.store);
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        // Writing to a String does not fail.
        let _ = writeln!(text, "  {name:<9} {value}");
    };
    line("listening", format!("http://{address}   gRPC, gRPC-Web, a page, /healthz, /readyz, /metrics"));
    line(
        "store",
        format!("{}   {}, {} instruments, log at {}", store.place, size(store.bytes), store.instruments, store.entries),
    );
    let history = config.history_retention.map_or("for ever".to_owned(), span);
    line(
        "kept",
        format!("log {} or {}, history {history}", span(config.log_retention), size(config.log_retention_bytes)),
    );
    if let Some(demo) = config.demo {
        let rate = demo.ticks_per_second;
        line("demo", format!("{rate} invented ticks a second on NASDAQ and NYSE"));
    }
    let symbol = if config.demo.is_some() { "AAPL" } else { "'*'" };
    format!(
        "Tapefeed {version}\n{text}\nTry:\n  \
         tapefeed --server http://{address} latest {symbol}\n  \
         tapefeed --server http://{address} watch\n  \
         buf curl --protocol grpc --http2-prior-knowledge http://{address}/tapefeed.v1.InstrumentService/ListInstruments\n",
        version = env!("CARGO_PKG_VERSION"),
    )
}

/// Bytes for people.
fn size(bytes: u64) -> String {
    let mut unit = "B";
    let mut tenths = u128::from(bytes) * 10;
    for larger in ["KiB", "MiB", "GiB", "TiB"] {
        if tenths < 10_240 {
            break;
        }
        tenths /= 1_024;
        unit = larger;
    }
    match tenths % 10 {
        0 => format!("{} {unit}", tenths / 10),
        tenth => format!("{}.{tenth} {unit}", tenths / 10),
    }
}

/// A span of time for people, in the largest whole unit below two days.
fn span(span: std::time::Duration) -> String {
    let seconds = span.as_secs();
    match seconds {
        s if s >= 172_800 && s % 86_400 == 0 => format!("{} d", s / 86_400),
        s if s >= 3_600 && s % 3_600 == 0 => format!("{} h", s / 3_600),
        s if s >= 60 && s % 60 == 0 => format!("{} min", s / 60),
        s => format!("{s} s"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn sizes_and_spans_are_readable() {
        let sizes = [(0, "0 B"), (1_023, "1023 B"), (1_024, "1 KiB"), (1_536, "1.5 KiB"), (8 << 30, "8 GiB")];
        for (bytes, text) in sizes {
            assert_eq!(size(bytes), text);
        }
        let spans = [(86_400, "24 h"), (604_800, "7 d"), (90, "90 s"), (120, "2 min")];
        for (seconds, text) in spans {
            assert_eq!(span(Duration::from_secs(seconds)), text);
        }
    }
}
