//! `OpenTelemetry` traces: which one a request belongs to, and the way of its spans to a collector.
//!
//! Spans are made from the record when the request has ended, by the task that sends them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::propagation::TextMapPropagator as _;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt as _, TraceId};
use opentelemetry::{Context, KeyValue};
use opentelemetry_http::HeaderExtractor;
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{SpanData, SpanExporter as _};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::TraceSettings;
use super::record::Record;
use super::spans::spans;
use collector::CollectorClient;

mod collector;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// The most requests that wait to be sent; those beyond are not traced.
const QUEUE: usize = 4_096;
/// The most requests that are sent at once.
const BATCH: usize = 512;
/// How long a batch is gathered.
const GATHER: Duration = Duration::from_secs(1);
/// How long the collector may take.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long it may take at the stop, for everything that is left.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(1_500);

/// The place of one request in its trace.
#[derive(Debug)]
pub(super) struct Trace {
    /// The caller's span; not valid when the caller does not trace.
    pub(super) parent: SpanContext,
    pub(super) id: TraceId,
    /// The span of the whole request.
    pub(super) span: SpanId,
    /// The spans of its attempts, in order.
    pub(super) attempts: Vec<SpanId>,
}

/// A request that is over.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) record: Arc<Record>,
    pub(super) trace: Box<Trace>,
}

/// Takes in what is to be sent.
#[derive(Debug)]
pub(super) struct Tracer {
    told: mpsc::Sender<Told>,
    dropped: Arc<AtomicU64>,
}

/// Sends spans to the collector.
#[derive(Debug)]
pub(super) struct Exporter {
    told: mpsc::Receiver<Told>,
    dropped: Arc<AtomicU64>,
    settings: TraceSettings,
    instance: String,
}

impl Trace {
    /// Returns the trace of a request with these headers; `None` when its caller does not want it
    /// to be traced.
    pub(super) fn of(headers: &HeaderMap) -> Option<Box<Self>> {
        let caller = TraceContextPropagator::new()
            .extract_with_context(&Context::new(), &HeaderExtractor(headers));
        let parent = caller.span().span_context().clone();
        let id = if parent.is_valid() {
            parent.trace_id()
        } else {
            TraceId::from(rand::random::<u128>())
        };
        let is_wanted = !parent.is_valid() || parent.is_sampled();
        is_wanted.then(|| {
            Box::new(Self {
                parent,
                id,
                span: new_span_id(),
                attempts: Vec::new(),
            })
        })
    }

    /// The next attempt begins.
    pub(super) fn attempt(&mut self) {
        self.attempts.push(new_span_id());
    }

    /// Names the span of the attempt as the parent of what the upstream does.
    pub(super) fn mark(&self, headers: &mut HeaderMap) {
        let span_id = self.attempts.last().unwrap_or(&self.span);
        let value = format!("00-{}-{span_id}-01", self.id);
        let value = HeaderValue::try_from(value).expect("hexadecimal digits are a header value");
        headers.insert(TRACEPARENT, value);
    }
}

impl Tracer {
    /// Makes a tracer and what sends for it.
    pub(super) fn new(settings: TraceSettings, instance: String) -> (Self, Exporter) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let dropped = Arc::<AtomicU64>::default();
        let tracer = Self {
            told: sender,
            dropped: Arc::clone(&dropped),
        };
        let exporter = Exporter {
            told: receiver,
            dropped,
            settings,
            instance,
        };
        (tracer, exporter)
    }

    /// Hands over a request that is over, or drops it when too many wait.
    pub(super) fn end(&self, told: Told) {
        if self.told.try_send(told).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Returns how many requests' spans did not reach the collector.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

impl Exporter {
    /// Sends until `token` is cancelled, and then what is left.
    pub(super) async fn run(mut self, token: CancellationToken) -> Result<(), ExportError> {
        let exporter = self.exporter()?;
        let mut works = true;
        while let Some(batch) = self.gather(&token).await {
            self.send(&exporter, batch, EXPORT_TIMEOUT, &mut works)
                .await;
        }
        self.told.close();
        let mut rest = Vec::new();
        while let Ok(told) = self.told.try_recv() {
            rest.push(told);
        }
        if !rest.is_empty() {
            self.send(&exporter, rest, FLUSH_TIMEOUT, &mut works).await;
        }
        Ok(())
    }

    fn exporter(&self) -> Result<SpanExporter, ExportError> {
        let mut exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(CollectorClient::default())
            .with_endpoint(&*self.settings.endpoint)
            .with_timeout(EXPORT_TIMEOUT)
            .build()?;
        let resource = Resource::builder_empty()
            .with_service_name(self.settings.service_name.clone())
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .with_attribute(KeyValue::new("service.instance.id", self.instance.clone()))
            .build();
        exporter.set_resource(&resource);
        Ok(exporter)
    }

    /// Waits for requests that are over; `None` when it is time to end.
    async fn gather(&mut self, token: &CancellationToken) -> Option<Vec<Told>> {
        let mut batch = Vec::new();
        tokio::select! {
            biased;
            () = token.cancelled() => return None,
            count = self.told.recv_many(&mut batch, BATCH) => (count > 0).then_some(())?,
        }
        let enough = tokio::time::sleep(GATHER);
        tokio::pin!(enough);
        while batch.len() < BATCH {
            let room = BATCH - batch.len();
            tokio::select! {
                () = token.cancelled() => break,
                () = &mut enough => break,
                count = self.told.recv_many(&mut batch, room) => if count == 0 { break },
            }
        }
        Some(batch)
    }

    async fn send(
        &self,
        exporter: &SpanExporter,
        batch: Vec<Told>,
        most: Duration,
        works: &mut bool,
    ) {
        let requests = batch.len() as u64;
        let spans: Vec<SpanData> = batch.iter().flat_map(spans).collect();
        let sent = tokio::time::timeout(most, exporter.export(spans)).await;
        let failure = match sent {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_elapsed) => Some("it did not answer in time".to_owned()),
        };
        if let Some(error) = &failure {
            self.dropped.fetch_add(requests, Ordering::Relaxed);
            if *works {
                let endpoint = &*self.settings.endpoint;
                tracing::warn!(endpoint, error, "Collector does not take traces");
            }
        } else if !*works {
            tracing::info!("Collector takes traces again");
        }
        *works = failure.is_none();
    }
}

/// Why no traces can be sent.
#[derive(Debug, thiserror::Error)]
#[error("failed to prepare for sending traces")]
pub struct ExportError(#[from] opentelemetry_otlp::ExporterBuildError);

pub(super) fn new_span_id() -> SpanId {
    SpanId::from(rand::random_range(1..=u64::MAX))
}
