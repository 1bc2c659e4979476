//! The way of a span to the collector: a bounded queue, and a thread that empties it.
//!
//! Whoever ends a span puts it into the queue, or counts it as dropped when the queue is full: nobody ever waits. While
//! it is full spans are not even begun ([`Room`]): what would be dropped is not worth making. The
//! thread has a runtime of its own; only spans of this program are recorded, so that those of the connection to the
//! collector do not become spans themselves. A collector that is dead or silent costs the spans, and nothing else: it is
//! asked less and less often, and meanwhile the queue stays full.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

use opentelemetry::Context;
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Span, SpanData, SpanExporter as _, SpanProcessor};
use tokio::sync::Notify;

use crate::config::Traces;

/// Spans that were lost in this process.
static DROPPED: AtomicU64 = AtomicU64::new(0);

pub(super) fn dropped() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

/// The thread or its connection could not be made.
#[derive(Debug, thiserror::Error)]
pub(super) enum ExportError {
    #[error("the thread of the exporter cannot be started: {0}")]
    Thread(#[from] std::io::Error),
    #[error("the collector's address is not right: {0}")]
    Endpoint(String),
}

/// Spans on their way.
#[derive(Debug)]
struct Queue {
    /// Never held across an await.
    spans: Mutex<VecDeque<SpanData>>,
    /// How many there are, to be read without the lock.
    waiting: AtomicUsize,
    most: usize,
    batch: usize,
    /// Spans of the export that is under way.
    sending: AtomicU64,
    /// Told when there is a whole batch, and at the end.
    due: Notify,
    closing: AtomicBool,
}

impl Queue {
    fn spans(&self) -> MutexGuard<'_, VecDeque<SpanData>> {
        // The lock guards a queue that is whole after every step: a poisoned one is as good.
        self.spans.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Vec<SpanData> {
        let mut spans = self.spans();
        let count = spans.len().min(self.batch);
        self.waiting.store(spans.len() - count, Ordering::Relaxed);
        spans.drain(..count).collect()
    }

    fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// Waits, but not longer than until the end begins.
    async fn rest(&self, pause: Duration) {
        let closed = async {
            while !self.is_closing() {
                self.due.notified().await;
            }
        };
        let _ = tokio::time::timeout(pause, closed).await;
    }
}

/// A collector that does not take spans is asked again at least as often as this.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Whether the queue has room.
#[derive(Clone, Debug)]
pub(super) struct Room(Arc<Queue>);

impl Room {
    /// Whether a span that begins now would be kept; one that would not counts as dropped.
    pub(super) fn admits(&self) -> bool {
        let has_room = self.0.waiting.load(Ordering::Relaxed) < self.0.most;
        if !has_room {
            DROPPED.fetch_add(1, Ordering::Relaxed);
        }
        has_room
    }
}

/// Puts ended spans into the queue.
#[derive(Debug)]
pub(super) struct Processor(Arc<Queue>);

impl Processor {
    /// For those who begin spans.
    pub(super) fn room(&self) -> Room {
        Room(self.0.clone())
    }
}

impl SpanProcessor for Processor {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        let queue = &self.0;
        if !span.span_context.is_sampled() {
            return;
        }
        let mut spans = queue.spans();
        if spans.len() >= queue.most {
            drop(spans);
            DROPPED.fetch_add(1, Ordering::Relaxed);
            return;
        }
        spans.push_back(span);
        queue.waiting.store(spans.len(), Ordering::Relaxed);
        let whole = spans.len() == queue.batch;
        drop(spans);
        if whole {
            queue.due.notify_one();
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        // The exporter is closed by its owner.
        Ok(())
    }
}

/// The thread that empties the queue.
#[derive(Debug)]
pub(super) struct Exporter {
    queue: Arc<Queue>,
    ended: mpsc::Receiver<()>,
}

impl Exporter {
    /// Sends what is left, waiting no longer than this. The spans that did not get away.
    pub(super) fn close(self, patience: Duration) -> u64 {
        let before = dropped();
        self.queue.closing.store(true, Ordering::Release);
        self.queue.due.notify_one();
        if self.ended.recv_timeout(patience).is_err() {
            let left = std::mem::take(&mut *self.queue.spans()).len() as u64;
            DROPPED.fetch_add(left + self.queue.sending.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        dropped() - before
    }
}

/// Starts the thread.
pub(super) fn start(traces: &Traces, resource: Resource) -> Result<(Processor, Exporter), ExportError> {
    let queue = Arc::new(Queue {
        spans: Mutex::default(),
        waiting: AtomicUsize::new(0),
        most: traces.queue,
        batch: traces.batch,
        sending: AtomicU64::new(0),
        due: Notify::new(),
        closing: AtomicBool::new(false),
    });
    let (endpoint, delay, timeout) = (traces.endpoint.clone(), traces.delay, traces.timeout);
    let (ready, made) = mpsc::sync_channel(1);
    let (end, ended) = mpsc::sync_channel(1);
    let queued = queue.clone();
    std::thread::Builder::new().name("traces".to_owned()).spawn(move || {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(problem) => return drop(ready.send(Err(ExportError::Thread(problem)))),
        };
        runtime.block_on(async {
            match SpanExporter::builder().with_tonic().with_endpoint(endpoint).build() {
                Ok(mut exporter) => {
                    exporter.set_resource(&resource);
                    let _ = ready.send(Ok(()));
                    run(&exporter, &queued, delay, timeout).await;
                }
                Err(problem) => drop(ready.send(Err(ExportError::Endpoint(problem.to_string())))),
            }
        });
        // Told before the runtime goes, which may wait for a name to be looked up.
        let _ = end.send(());
    })?;
    // The address is only parsed by now; nothing has been asked of the network.
    made.recv().unwrap_or_else(|_| Err(ExportError::Endpoint("the exporter did not start".to_owned())))?;
    Ok((Processor(queue.clone()), Exporter { queue, ended }))
}

async fn run(exporter: &SpanExporter, queue: &Queue, delay: Duration, timeout: Duration) {
    // How long the collector is left alone after it did not take a batch; nothing while it takes them.
    let mut pause = None;
    loop {
        match pause {
            Some(pause) => queue.rest(pause).await,
            // Whichever comes first; either way there may be something to send.
            None if !queue.is_closing() => drop(tokio::time::timeout(delay, queue.due.notified()).await),
            None => (),
        }
        let closing = queue.is_closing();
        loop {
            let spans = queue.take();
            if spans.is_empty() {
                break;
            }
            let (count, whole) = (spans.len(), spans.len() == queue.batch);
            queue.sending.store(count as u64, Ordering::Relaxed);
            let problem = match tokio::time::timeout(timeout, exporter.export(spans)).await {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(error.to_string()),
                Err(_) => Some("the export took too long".to_owned()),
            };
            queue.sending.store(0, Ordering::Relaxed);
            if problem.is_some() {
                DROPPED.fetch_add(count as u64, Ordering::Relaxed);
            }
            let next = problem.is_some().then(|| pause.map_or(delay, |pause| (2 * pause).min(LONGEST_PAUSE)));
            if next.is_some() != pause.is_some() {
                tell(problem);
            }
            pause = next;
            if pause.is_some() || !whole && !closing {
                break;
            }
        }
        if closing {
            DROPPED.fetch_add(std::mem::take(&mut *queue.spans()).len() as u64, Ordering::Relaxed);
            return;
        }
    }
}

/// Tells the log, once for each change, whether spans arrive.
fn tell(problem: Option<String>) {
    match problem {
        Some(problem) => tracing::warn!(%problem, "the collector does not take spans; they are dropped until it does"),
        None => tracing::info!(dropped = dropped(), "the collector takes spans again"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use opentelemetry::trace::{Tracer as _, TracerProvider as _};
    use opentelemetry_sdk::trace::SdkTracerProvider;

    use super::*;
    use crate::config::SampledShare;

    #[test]
    fn a_silent_collector_costs_spans_that_are_counted_and_two_seconds_at_the_end() {
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let traces = Traces {
            endpoint: format!("http://{}", silent.local_addr().unwrap()),
            service_name: "test".into(),
            instance: String::new(),
            attributes: Vec::new(),
            sampled: SampledShare::All,
            parent_based: true,
            propagate: true,
            queue: 100,
            batch: 10,
            delay: Duration::from_millis(1),
            timeout: Duration::from_secs(30),
            warnings: Vec::new(),
        };
        let (processor, exporter) = start(&traces, Resource::builder_empty().build()).unwrap();
        let room = processor.room();
        let provider = SdkTracerProvider::builder().with_span_processor(processor).build();
        let tracer = provider.tracer("test");
        let before = dropped();
        let begin = Instant::now();
        for _ in 0..999 {
            drop(tracer.start("span"));
        }
        assert!(!room.admits(), "and says that it is full");
        assert!(begin.elapsed() < Duration::from_secs(1), "nobody waits");
        // The queue holds 100, and the export that hangs has a batch of 10, if it had begun by then.
        let lost = dropped() - before;
        assert!((890..=900).contains(&lost), "{lost}");
        let begin = Instant::now();
        assert_eq!(lost + exporter.close(Duration::from_millis(300)), 1_000, "every span is accounted for");
        assert!(begin.elapsed() < Duration::from_secs(2));
    }
}
