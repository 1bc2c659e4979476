//! The two text formats of Prometheus.

use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::registry::Registry;

/// How the text is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// The classic text format, version 0.0.4.
    Text,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Format {
    /// What an `Accept` header asks for; without a wish the classic format, which every tool reads.
    pub fn accepted(accept: &str) -> Format {
        if accept.contains("application/openmetrics-text") { Format::OpenMetrics } else { Format::Text }
    }

    /// Its media type.
    pub fn content_type(self) -> &'static str {
        match self {
            Format::Text => "text/plain; version=0.0.4; charset=utf-8",
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Everything that is registered.
pub(super) fn text(registry: &Registry, format: Format) -> String {
    let mut text = String::with_capacity(64 << 10);
    encode_registry(&mut text, registry).expect("writing to a String cannot fail");
    match format {
        Format::OpenMetrics => {
            encode_eof(&mut text).expect("writing to a String cannot fail");
            text
        }
        Format::Text => classic(&text),
    }
}

/// OpenMetrics in the words of the classic format, which names a counter by its series: with `_total`. The samples
/// themselves are the same.
fn classic(open: &str) -> String {
    let mut text = String::with_capacity(open.len() + (1 << 10));
    let mut help = None;
    for line in open.lines() {
        if let Some(described) = line.strip_prefix("# HELP ") {
            help = described.split_once(' ');
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|typed| typed.split_once(' ')) {
            let suffix = if kind == "counter" { "_total" } else { "" };
            let words = help.take().map_or("", |(_, words)| words);
            for part in ["# HELP ", name, suffix, " ", words, "\n# TYPE ", name, suffix, " ", kind, "\n"] {
                text.push_str(part);
            }
        } else if !line.starts_with('#') {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}
