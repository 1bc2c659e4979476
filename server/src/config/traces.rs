//! Where traces go: the variables that OpenTelemetry's specification names, as data.
//!
//! As the specification wants it, a value that makes no sense is a warning and not a refusal: these variables are often
//! set for a whole machine. `OTEL_EXPORTER_OTLP_HEADERS`, `_TIMEOUT` and `_COMPRESSION`, and the limits `OTEL_SPAN_*`,
//! are read by the exporter and the SDK themselves.

use std::str::FromStr;
use std::time::Duration;

/// Where traces go, how many, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct Traces {
    /// The collector, as in `http://127.0.0.1:4317`.
    pub endpoint: String,
    /// The name of this service.
    pub service_name: String,
    /// Further attributes of this process.
    pub attributes: Vec<(String, String)>,
    /// A name of this process alone.
    pub instance: String,
    /// Which traces are kept.
    pub sampled: SampledShare,
    /// Whether the caller decides for its own traces.
    pub parent_based: bool,
    /// Whether W3C trace context is read from calls.
    pub propagate: bool,
    /// Spans that wait at most; further ones are dropped.
    pub queue: usize,
    /// Spans of one export at most.
    pub batch: usize,
    /// How long spans wait for others.
    pub delay: Duration,
    /// How long an export may take.
    pub timeout: Duration,
    /// What was set and is not understood.
    pub warnings: Vec<String>,
}

/// How many of the traces that begin here are kept.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum SampledShare {
    /// All.
    All,
    /// None.
    None,
    /// A share, from 0 to 1.
    Ratio(f64),
}

impl Traces {
    /// Reads the variables; `None` unless an endpoint is set and nothing turns traces off.
    pub(super) fn read(seed: u128, variable: impl Fn(&str) -> Option<String>) -> Option<Traces> {
        let endpoint =
            variable("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT").or_else(|| variable("OTEL_EXPORTER_OTLP_ENDPOINT"))?;
        let off = variable("OTEL_SDK_DISABLED").is_some_and(|value| value.trim().eq_ignore_ascii_case("true"));
        let exporter = variable("OTEL_TRACES_EXPORTER");
        if off || exporter.as_deref().is_some_and(|exporter| exporter.trim() == "none") {
            return None;
        }
        let mut warnings = Vec::new();
        let protocol =
            variable("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL").or_else(|| variable("OTEL_EXPORTER_OTLP_PROTOCOL"));
        if let Some(protocol) = protocol.filter(|protocol| protocol.trim() != "grpc") {
            warnings.push(format!("OTEL_EXPORTER_OTLP_PROTOCOL: {protocol} is not spoken here, only grpc"));
        }
        let (sampled, parent_based) = sampler(&variable, &mut warnings);
        let mut attributes = attributes(&variable, &mut warnings);
        let named = attributes.iter().position(|(key, _)| key == "service.name").map(|at| attributes.remove(at).1);
        let service_name = variable("OTEL_SERVICE_NAME").or(named).unwrap_or_else(|| "tapefeed-server".to_owned());
        let queue = number(&variable, "OTEL_BSP_MAX_QUEUE_SIZE", 2_048, &mut warnings).max(1);
        let batch = number(&variable, "OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512, &mut warnings).clamp(1, queue);
        let delay = number(&variable, "OTEL_BSP_SCHEDULE_DELAY", 5_000, &mut warnings);
        let timeout = number(&variable, "OTEL_BSP_EXPORT_TIMEOUT", 30_000, &mut warnings);
        Some(Traces {
            endpoint: endpoint.trim().to_owned(),
            service_name,
            instance: uuid(seed),
            attributes,
            sampled,
            parent_based,
            propagate: propagates(&variable, &mut warnings),
            queue,
            batch,
            delay: Duration::from_millis(delay),
            timeout: Duration::from_millis(timeout),
            warnings,
        })
    }
}

/// A random UUID.
fn uuid(random: u128) -> String {
    let random = random & !(0xf << 76 | 0x3 << 62) | 0x4 << 76 | 0x2 << 62;
    let digits = format!("{random:032x}");
    [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]].join("-")
}

/// A whole number, or its default.
fn number<N: FromStr>(
    variable: impl Fn(&str) -> Option<String>,
    name: &str,
    default: N,
    warnings: &mut Vec<String>,
) -> N {
    let Some(text) = variable(name) else { return default };
    text.trim().parse().unwrap_or_else(|_| {
        warnings.push(format!("{name}: {text} is no number that is possible here"));
        default
    })
}

fn sampler(variable: impl Fn(&str) -> Option<String>, warnings: &mut Vec<String>) -> (SampledShare, bool) {
    let Some(name) = variable("OTEL_TRACES_SAMPLER") else {
        return (SampledShare::All, true);
    };
    let name = name.trim();
    let (parent_based, root) = name.strip_prefix("parentbased_").map_or((false, name), |root| (true, root));
    let share = match root {
        "always_on" => SampledShare::All,
        "always_off" => SampledShare::None,
        "traceidratio" => {
            let ratio: f64 = number(variable, "OTEL_TRACES_SAMPLER_ARG", 1.0, warnings);
            if (0.0..=1.0).contains(&ratio) {
                SampledShare::Ratio(ratio)
            } else {
                warnings.push(format!("OTEL_TRACES_SAMPLER_ARG: {ratio} is not between 0 and 1"));
                SampledShare::All
            }
        }
        _ => {
            warnings.push(format!("OTEL_TRACES_SAMPLER: {name} is not known, so every trace is kept"));
            return (SampledShare::All, true);
        }
    };
    (share, parent_based)
}

/// Pairs of a key and a value, where the value is percent-encoded.
fn attributes(variable: impl Fn(&str) -> Option<String>, warnings: &mut Vec<String>) -> Vec<(String, String)> {
    let text = variable("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default();
    let mut attributes = Vec::new();
    for pair in text.split(',').filter(|pair| !pair.trim().is_empty()) {
        match pair.split_once('=').map(|(key, value)| (key.trim(), decoded(value.trim()))) {
            Some((key, Some(value))) if !key.is_empty() => attributes.push((key.to_owned(), value)),
            _ => warnings.push(format!("OTEL_RESOURCE_ATTRIBUTES: {pair} is no key=value")),
        }
    }
    attributes
}

/// A percent-encoded text.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte == b'%' {
            let (digits, after) = rest.split_at_checked(2)?;
            let digits = std::str::from_utf8(digits).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = after;
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

fn propagates(variable: impl Fn(&str) -> Option<String>, warnings: &mut Vec<String>) -> bool {
    let Some(names) = variable("OTEL_PROPAGATORS") else {
        return true;
    };
    let mut propagates = false;
    for name in names.split(',').map(str::trim) {
        match name {
            "tracecontext" => propagates = true,
            // Nothing here reads baggage.
            "baggage" | "none" => {}
            _ => warnings.push(format!("OTEL_PROPAGATORS: {name} is not known here, only tracecontext")),
        }
    }
    propagates
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(set: &[(&str, &str)]) -> Option<Traces> {
        Traces::read(7, |name| set.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))
    }

    const ENDPOINT: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4317");

    #[test]
    fn without_an_endpoint_nothing_is_traced() {
        assert_eq!(read(&[("OTEL_SERVICE_NAME", "x")]), None);
        assert_eq!(read(&[ENDPOINT, ("OTEL_SDK_DISABLED", "TRUE")]), None);
        assert_eq!(read(&[ENDPOINT, ("OTEL_TRACES_EXPORTER", "none")]), None);
    }

    #[test]
    fn the_defaults_are_those_of_the_specification() {
        let traces = read(&[ENDPOINT]).unwrap();
        assert_eq!((traces.sampled, traces.parent_based, traces.propagate), (SampledShare::All, true, true));
        assert_eq!((traces.queue, traces.batch), (2_048, 512));
        assert_eq!((traces.delay.as_secs(), traces.timeout.as_secs()), (5, 30));
        assert_eq!(traces.service_name, "tapefeed-server");
        assert_eq!(traces.instance, "00000000-0000-4000-8000-000000000007");
        assert!(traces.warnings.is_empty());
    }

    #[test]
    fn what_is_set_is_taken() {
        let traces = read(&[
            ENDPOINT,
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://t:1"),
            ("OTEL_RESOURCE_ATTRIBUTES", "service.name=left,deployment.environment.name=test%20bed, a = b"),
            ("OTEL_TRACES_SAMPLER", "traceidratio"),
            ("OTEL_TRACES_SAMPLER_ARG", "0.25"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "100"),
            ("OTEL_PROPAGATORS", "none"),
        ])
        .unwrap();
        assert_eq!((traces.endpoint.as_str(), traces.service_name.as_str()), ("http://t:1", "left"));
        let attributes: Vec<_> = traces.attributes.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        assert_eq!(attributes, [("deployment.environment.name", "test bed"), ("a", "b")]);
        assert_eq!((traces.sampled, traces.parent_based), (SampledShare::Ratio(0.25), false));
        assert_eq!((traces.queue, traces.batch, traces.propagate), (100, 100, false));
        assert!(traces.warnings.is_empty());
    }

    #[test]
    fn what_makes_no_sense_is_a_warning_and_its_default() {
        let traces = read(&[
            ENDPOINT,
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
            ("OTEL_RESOURCE_ATTRIBUTES", "alone,bad=%f"),
            ("OTEL_TRACES_SAMPLER", "xray"),
            ("OTEL_BSP_SCHEDULE_DELAY", "-1"),
            ("OTEL_PROPAGATORS", "b3"),
        ])
        .unwrap();
        assert_eq!((traces.sampled, traces.parent_based), (SampledShare::All, true));
        assert_eq!(traces.delay.as_secs(), 5);
        assert_eq!(traces.warnings.len(), 6, "{:?}", traces.warnings);
    }
}
