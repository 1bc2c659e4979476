//! The log on standard error, and spans to a collector if one is named.
//!
//! The log is filtered by `--log`, which can be changed while the server runs: [`Telemetry::follow_file`]. Spans go the
//! way of [`export`], on a thread of its own that nothing here ever waits for; without an endpoint there is no layer
//! for them, and their macros cost a load. [`lines`] puts the trace's id into the log.

mod export;
mod lines;
mod sampling;

use std::io::IsTerminal as _;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::resource::TelemetryResourceDetector;
use opentelemetry_sdk::trace::{SdkTracerProvider, Tracer};
use tokio::signal::unix::{SignalKind, signal};
use tracing::subscriber::Interest;
use tracing::{Level, Metadata};
use tracing_subscriber::filter::{ParseError, dynamic_filter_fn};
use tracing_subscriber::fmt::format::JsonFields;
use tracing_subscriber::layer::{self, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer, Registry, reload};

use crate::config::{LogConfig, LogFormat, Traces};
use export::{Exporter, Room};

/// How long the end of the process waits for the last spans.
const CLOSE: Duration = Duration::from_secs(2);

/// The filter is not one, or a log is set up already.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// Not a filter.
    #[error("--log: {0}; write a level such as info, or pairs such as info,tapefeed_server=debug")]
    Filter(#[from] ParseError),
    /// Somebody else was first.
    #[error("a log is set up already")]
    Taken,
}

/// The log and the traces of this process.
#[derive(Debug)]
pub struct Telemetry {
    filter: reload::Handle<EnvFilter, Registry>,
    exporter: Option<Exporter>,
}

/// Spans that were lost since the process began: the queue was full, or the collector did not take them.
pub fn dropped_spans() -> u64 {
    export::dropped()
}

/// Sets up the log of this process and its traces, once. A collector that is named wrongly is told in the log: it does
/// not keep the server from serving.
pub fn init(log: &LogConfig, traces: Option<Traces>) -> Result<Telemetry, TelemetryError> {
    let (filter, handle) = reload::Layer::new(EnvFilter::try_new(&log.filter)?);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    // On a terminal the subscriber itself decides, which honours NO_COLOR.
    let lines = if std::io::stderr().is_terminal() { lines } else { lines.with_ansi(false) };
    let lines = match log.format {
        LogFormat::Text => lines.event_format(lines::Text::default()).with_filter(filter).boxed(),
        LogFormat::Json => {
            lines.fmt_fields(JsonFields::new()).event_format(lines::Json::default()).with_filter(filter).boxed()
        }
    };
    let mut warnings = Vec::new();
    let mut exporter = None;
    let mut spans = None;
    if let Some(traces) = traces {
        warnings.clone_from(&traces.warnings);
        match export::start(&traces, resource(&traces)) {
            Ok((processor, started)) => {
                let room = processor.room();
                if traces.propagate {
                    opentelemetry::global::set_text_map_propagator(TraceContextPropagator::new());
                }
                let provider = SdkTracerProvider::builder()
                    .with_sampler(sampling::Sampled::new(&traces))
                    .with_resource(resource(&traces))
                    .with_span_processor(processor)
                    .build();
                spans = Some(layer(provider.tracer("tapefeed-server"), room));
                exporter = Some(started);
            }
            Err(problem) => warnings.push(format!("{problem}; there are no traces")),
        }
    }
    let taken = tracing_subscriber::registry().with(lines).with(spans).try_init();
    taken.map_err(|_| TelemetryError::Taken)?;
    for warning in warnings {
        tracing::warn!("telemetry: {warning}");
    }
    Ok(Telemetry { filter: handle, exporter })
}

/// Hands spans to OpenTelemetry: ours alone, so that what carries them to the collector makes none. Of the log, what a
/// span should show: warnings and errors. While there is no room for a span, none is begun: one that nobody will see
/// costs as much to make as any other.
fn layer<S>(tracer: Tracer, room: Room) -> impl Layer<S>
where
    S: tracing::Subscriber + for<'span> tracing_subscriber::registry::LookupSpan<'span>,
{
    fn is_ours(metadata: &Metadata<'_>) -> bool {
        let level = if metadata.is_span() { Level::DEBUG } else { Level::WARN };
        metadata.target().starts_with("tapefeed_server") && *metadata.level() <= level
    }
    let ours = dynamic_filter_fn(move |metadata, _: &layer::Context<'_, S>| {
        is_ours(metadata) && (!metadata.is_span() || room.admits())
    })
    .with_callsite_filter(|callsite| if is_ours(callsite) { Interest::sometimes() } else { Interest::never() });
    tracing_opentelemetry::layer()
        .with_tracer(tracer)
        .with_location(false)
        .with_threads(false)
        .with_tracked_inactivity(false)
        // Nobody asks OpenTelemetry which span is entered, and telling it at every poll is most of what a stream would pay.
        .with_context_activation(false)
        .with_target(false)
        .with_level(false)
        // A status is the answer of an operation, not that somebody logged an error in it.
        .with_error_events_to_status(false)
        .with_filter(ours.with_max_level_hint(Level::DEBUG))
}

/// What every span says of this process.
fn resource(traces: &Traces) -> Resource {
    let ours = [
        KeyValue::new("service.name", traces.service_name.clone()),
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("service.instance.id", traces.instance.clone()),
    ];
    let set = traces.attributes.iter().map(|(key, value)| KeyValue::new(key.clone(), value.clone()));
    Resource::builder_empty()
        .with_detector(Box::new(TelemetryResourceDetector))
        .with_attributes(ours)
        .with_attributes(set)
        .build()
}

impl Telemetry {
    /// Changes what is logged.
    pub fn refilter(&self, filter: &str) -> Result<(), TelemetryError> {
        let filter = EnvFilter::try_new(filter)?;
        self.filter.reload(filter).map_err(|_| TelemetryError::Taken)
    }

    /// From now on a hang-up (SIGHUP) has the option file's `log` read again. A filter that is wrong changes nothing.
    /// On a terminal a hang-up says that the terminal is gone, and ends the server as it always did.
    pub fn follow_file(&self, log: &LogConfig) -> std::io::Result<()> {
        if std::io::stderr().is_terminal() {
            return Ok(());
        }
        let mut hangup = signal(SignalKind::hangup())?;
        let telemetry = Telemetry { filter: self.filter.clone(), exporter: None };
        let log = log.clone();
        tokio::spawn(async move {
            while hangup.recv().await.is_some() {
                let filter = match log.reread() {
                    Ok(filter) => filter,
                    Err(error) => {
                        tracing::error!(%error, "the log's filter stays as it is");
                        continue;
                    }
                };
                match telemetry.refilter(&filter) {
                    Ok(()) => tracing::info!(filter, "the log has another filter"),
                    Err(error) => tracing::error!(%error, "the log's filter stays as it is"),
                }
            }
        });
        Ok(())
    }

    /// Sends the last spans, for 2 s at most.
    pub async fn close(self) {
        let Some(exporter) = self.exporter else { return };
        // A blocking thread, so that a collector that says nothing holds up nothing else.
        let left = tokio::task::spawn_blocking(move || exporter.close(CLOSE)).await;
        if let Ok(left @ 1..) = left {
            tracing::warn!(spans = left, "the collector did not take the last spans");
        }
    }
}
