//! Where traces and metrics are sent, if anywhere: a collector that speaks OTLP over gRPC (OpenTelemetry protocol 1.x).

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use metrics_exporter_opentelemetry::Recorder as OtlpRecorder;
use opentelemetry_otlp::{ExporterBuildError, MetricExporter, SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::{Aggregation, Instrument, PeriodicReader, SdkMeterProvider, Stream};
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use url::Url;

use crate::monitoring::SECONDS;

/// How long the last of it may take to be sent, when a process ends.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// Settings of what is sent to a collector.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OtlpConfig {
    /// Where the collector is reached; empty: nothing is sent. It may have a key in it, so it is never written out again.
    #[serde(skip_serializing)]
    pub endpoint: SecretString,
    /// Which part of the batches is traced, from 0 to 1.
    pub sample_ratio: f64,
    /// How often metrics are sent.
    #[serde(with = "humantime_serde")]
    pub metrics_interval: Duration,
    /// How long the collector may take to answer.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
}

impl Default for OtlpConfig {
    fn default() -> Self {
        OtlpConfig {
            endpoint: SecretString::default(),
            sample_ratio: 0.001,
            metrics_interval: Duration::from_secs(30),
            timeout: Duration::from_secs(10),
        }
    }
}

/// Why nothing can be sent.
#[derive(Debug, thiserror::Error)]
pub enum OtlpError {
    /// A setting is not one.
    #[error("configuration key `otlp.{key}`: {reason}")]
    Setting {
        /// The key, after `otlp.`.
        key: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The collector's address is not one to send to. It is not shown: it may have a key in it.
    #[error("configuration key `otlp.endpoint`: its value (not shown) cannot be used")]
    Exporter(#[source] ExporterBuildError),
}

impl OtlpConfig {
    /// The collector's address, if there is one.
    fn address(&self) -> Result<Option<String>, OtlpError> {
        let wrong = |key, reason: &str| OtlpError::Setting { key, reason: reason.to_owned() };
        if !(0.0..=1.0).contains(&self.sample_ratio) {
            return Err(wrong("sample_ratio", &format!("{} is not within 0 to 1", self.sample_ratio)));
        }
        for (key, value, most_s) in [("metrics_interval", self.metrics_interval, 3600), ("timeout", self.timeout, 60)] {
            if !(Duration::from_secs(1)..=Duration::from_secs(most_s)).contains(&value) {
                return Err(wrong(key, &format!("{} s is not within 1 s to {most_s} s", value.as_secs_f64())));
            }
        }
        let text = self.endpoint.expose_secret();
        if text.is_empty() {
            return Ok(None);
        }
        match Url::parse(text) {
            Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => Ok(Some(text.to_owned())),
            _ => Err(wrong("endpoint", "its value (not shown) is not an address of the form http://host:port or https://host:port")),
        }
    }
}

/// What goes to a collector.
pub(crate) struct Otlp {
    pub(crate) tracers: SdkTracerProvider,
    meters: SdkMeterProvider,
    recorder: OtlpRecorder,
}

impl Otlp {
    /// Sets it up for a process with this part; nothing where no collector is configured. Whether the collector is there is not asked.
    pub(crate) fn new(config: &OtlpConfig, part: &str) -> Result<Option<Otlp>, OtlpError> {
        let Some(address) = config.address()? else { return Ok(None) };
        let resource = Resource::builder().with_service_name(format!("faultline-{part}")).build();
        let spans = SpanExporter::builder().with_tonic().with_endpoint(&address).with_timeout(config.timeout).build();
        let tracers = SdkTracerProvider::builder()
            .with_batch_exporter(spans.map_err(OtlpError::Exporter)?)
            // What another part began is gone on with, as it decided.
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(config.sample_ratio))))
            .with_resource(resource.clone())
            .build();
        let metrics = MetricExporter::builder().with_tonic().with_endpoint(&address).with_timeout(config.timeout).build();
        let reader = PeriodicReader::builder(metrics.map_err(OtlpError::Exporter)?).with_interval(config.metrics_interval).build();
        let (meters, recorder) = OtlpRecorder::builder("faultline")
            .with_meter_provider(|provider| provider.with_reader(reader).with_resource(resource).with_view(seconds))
            .build();
        Ok(Some(Otlp { tracers, meters, recorder }))
    }

    /// Where metrics go.
    pub(crate) fn recorder(&self) -> impl Recorder + Sync + 'static {
        Cached { recorder: self.recorder.clone(), counters: Memory::default(), gauges: Memory::default(), histograms: Memory::default() }
    }

    /// Sends what was not sent yet, for three seconds at most.
    pub(crate) fn finish(self) {
        let (done, ends) = mpsc::channel();
        // On threads of their own: exporters do not always keep to the time that they are given.
        let (tracers, spans_sent) = (self.tracers, done.clone());
        thread::spawn(move || spans_sent.send(tracers.shutdown_with_timeout(LAST_WORDS)));
        let meters = self.meters;
        thread::spawn(move || done.send(meters.shutdown_with_timeout(LAST_WORDS)));
        let begin = Instant::now();
        for _ in 0..2 {
            match ends.recv_timeout(LAST_WORDS.saturating_sub(begin.elapsed())) {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%error, "the last spans or metrics were not sent"),
                Err(_) => return,
            }
        }
    }
}

/// Histograms of seconds have the bounds that they have in `/metrics`.
fn seconds(instrument: &Instrument) -> Option<Stream> {
    let bounds = || Aggregation::ExplicitBucketHistogram { boundaries: SECONDS.to_vec(), record_min_max: true };
    let is_of_seconds =
        instrument.name().ends_with("_seconds") && matches!(instrument.kind(), opentelemetry_sdk::metrics::InstrumentKind::Histogram);
    is_of_seconds.then(|| Stream::builder().with_aggregation(bounds()).build().ok()).flatten()
}

/// Makes each instrument once: the recorder would make one whenever something is counted, and a gauge that is raised begins with its instrument.
struct Cached<R> {
    recorder: R,
    counters: Memory<Counter>,
    gauges: Memory<Gauge>,
    histograms: Memory<Histogram>,
}

struct Memory<T>(RwLock<HashMap<Key, T>>);

impl<T> Default for Memory<T> {
    fn default() -> Memory<T> {
        Memory(RwLock::default())
    }
}

impl<T: Clone> Memory<T> {
    fn get(&self, key: &Key, make: impl FnOnce() -> T) -> T {
        if let Some(known) = self.0.read().unwrap_or_else(PoisonError::into_inner).get(key) {
            return known.clone();
        }
        self.0.write().unwrap_or_else(PoisonError::into_inner).entry(key.clone()).or_insert_with(make).clone()
    }
}

impl<R: Recorder> Recorder for Cached<R> {
    fn describe_counter(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.recorder.describe_counter(key, unit, description);
    }

    fn describe_gauge(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.recorder.describe_gauge(key, unit, description);
    }

    fn describe_histogram(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.recorder.describe_histogram(key, unit, description);
    }

    fn register_counter(&self, key: &Key, metadata: &Metadata<'_>) -> Counter {
        self.counters.get(key, || self.recorder.register_counter(key, metadata))
    }

    fn register_gauge(&self, key: &Key, metadata: &Metadata<'_>) -> Gauge {
        self.gauges.get(key, || self.recorder.register_gauge(key, metadata))
    }

    fn register_histogram(&self, key: &Key, metadata: &Metadata<'_>) -> Histogram {
        self.histograms.get(key, || self.recorder.register_histogram(key, metadata))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_used_is_named_and_a_key_is_not_shown() {
        let default = OtlpConfig::default();
        assert!(default.address().unwrap().is_none());
        for (config, said) in [
            (OtlpConfig { endpoint: "collector:4317?key=hunter2".to_owned().into(), ..default.clone() }, "`otlp.endpoint`"),
            (OtlpConfig { endpoint: "grpc://hunter2@collector:4317".to_owned().into(), ..default.clone() }, "`otlp.endpoint`"),
            (OtlpConfig { sample_ratio: 1.5, ..default.clone() }, "`otlp.sample_ratio`: 1.5 is not within 0 to 1"),
            (OtlpConfig { timeout: Duration::ZERO, ..default.clone() }, "`otlp.timeout`: 0 s is not within 1 s to 60 s"),
        ] {
            let message = config.address().unwrap_err().to_string();
            assert!(message.contains(said) && !message.contains("hunter2"), "{message}");
        }
    }
}
