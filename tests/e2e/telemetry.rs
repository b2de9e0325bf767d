//! What a collector is sent: one trace from the gateway through Kafka to the insert, and the metrics.

use std::sync::{Arc, Mutex};

use faultline_store::{ClickHouseConfig, Database};
use faultline_stream::KafkaConfig;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{MetricsService, MetricsServiceServer};
use opentelemetry_proto::tonic::collector::metrics::v1::{ExportMetricsServiceRequest, ExportMetricsServiceResponse};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::Span;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

use crate::classifier::counted;
use crate::program::run;
use crate::sandbox::{port, sandbox};
use crate::services::{Gateway, Service, Settings, settings_with};
use crate::terminal::{batch, event};

/// A collector that keeps what it is sent, each with the service that sent it.
#[derive(Clone, Default)]
struct Collector {
    spans: Arc<Mutex<Vec<(String, Span)>>>,
    metrics: Arc<Mutex<Vec<(String, String)>>>,
}

impl Collector {
    async fn start(&self) -> Settings {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server =
            Server::builder().add_service(TraceServiceServer::new(self.clone())).add_service(MetricsServiceServer::new(self.clone()));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        vec![("OTLP__ENDPOINT", format!("http://{address}")), ("OTLP__SAMPLE_RATIO", "1".into()), ("OTLP__METRICS_INTERVAL", "1s".into())]
    }

    fn spans(&self, name: &str) -> Vec<(String, Span)> {
        self.spans.lock().unwrap().iter().filter(|(_, span)| span.name == name).cloned().collect()
    }
}

fn service(resource: Option<Resource>) -> String {
    let attributes = resource.unwrap().attributes;
    let name = attributes.into_iter().find(|attribute| attribute.key == "service.name").unwrap();
    match name.value.unwrap().value.unwrap() {
        Value::StringValue(name) => name,
        other => panic!("{other:?} is not a name"),
    }
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(&self, request: Request<ExportTraceServiceRequest>) -> Result<Response<ExportTraceServiceResponse>, Status> {
        for of_service in request.into_inner().resource_spans {
            let name = service(of_service.resource);
            let spans = of_service.scope_spans.into_iter().flat_map(|scope| scope.spans);
            self.spans.lock().unwrap().extend(spans.map(|span| (name.clone(), span)));
        }
        Ok(Response::new(Default::default()))
    }
}

#[tonic::async_trait]
impl MetricsService for Collector {
    async fn export(&self, request: Request<ExportMetricsServiceRequest>) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        for of_service in request.into_inner().resource_metrics {
            let name = service(of_service.resource);
            let metrics = of_service.scope_metrics.into_iter().flat_map(|scope| scope.metrics);
            self.metrics.lock().unwrap().extend(metrics.map(|metric| (name.clone(), metric.name)));
        }
        Ok(Response::new(Default::default()))
    }
}

#[tokio::test]
async fn one_trace_goes_from_the_gateway_to_the_insert() {
    let shared = sandbox().await;
    let kafka = KafkaConfig { topic_prefix: "telemetry".into(), ..shared.kafka.clone() };
    let clickhouse = ClickHouseConfig { database: "telemetry".into(), ..shared.clickhouse.clone() };
    let collector = Collector::default();
    let sent = collector.start().await;
    let classifier = Service::start("classifier", [settings_with(&kafka, &clickhouse), sent.clone()].concat());
    let gateway = Gateway::start_on(kafka, &sent).await;
    tokio::join!(gateway.service.until_ready(), classifier.until_ready());
    for first in [1, 3] {
        gateway.terminal().report(batch(vec![event(first), event(first + 1)])).await.unwrap();
    }
    counted(&clickhouse, 4).await;
    // What was not sent yet is sent at the end.
    gateway.stop().await;
    classifier.stop().await;

    let (batches, records, inserts) = (collector.spans("batch"), collector.spans("classify"), collector.spans("insert"));
    assert_eq!((batches.len(), records.len(), inserts.len()), (2, 2, 2));
    let produced = collector.spans("produce");
    for (service, insert) in &inserts {
        let parent = |span: &Span, among: &[(String, Span)], service: &str| {
            let (its_service, parent) = among.iter().find(|(_, parent)| parent.span_id == span.parent_span_id).unwrap().clone();
            assert_eq!((its_service.as_str(), &parent.trace_id), (service, &span.trace_id));
            assert!(parent.start_time_unix_nano <= span.start_time_unix_nano, "{parent:?} {span:?}");
            parent
        };
        assert_eq!(service, "faultline-classifier");
        let record = parent(insert, &records, "faultline-classifier");
        let sent = parent(&record, &produced, "faultline-gateway");
        let root = parent(&sent, &batches, "faultline-gateway");
        assert!(root.parent_span_id.is_empty(), "{root:?}");
    }
    assert_ne!(batches[0].1.trace_id, batches[1].1.trace_id);
    for (service, name) in [
        ("faultline-gateway", "faultline_gateway_events_total"),
        ("faultline-gateway", "faultline_ready"),
        ("faultline-classifier", "faultline_classifier_lag_seconds"),
    ] {
        let sent = collector.metrics.lock().unwrap().clone();
        assert!(sent.contains(&(service.into(), name.into())), "{service} {name} is not among {sent:?}");
    }
}

/// Nobody waits for a collector, and nothing depends on it.
#[tokio::test]
async fn a_collector_that_is_not_there_stops_nothing() {
    let shared = sandbox().await;
    let clickhouse = ClickHouseConfig { database: "no_collector".into(), ..shared.clickhouse.clone() };
    Database::new(&clickhouse).unwrap().migrate().await.unwrap();
    let mut settings = settings_with(&shared.kafka, &clickhouse);
    settings.push(("CONSOLE__LISTEN", format!("127.0.0.1:{}", port())));
    settings.push(("OTLP__ENDPOINT", format!("http://127.0.0.1:{}", port())));
    let console = Service::start("console", settings);
    console.until_ready().await;
    console.stop().await;
    let wrong = [("OTLP__ENDPOINT", "collector/key=hunter2".to_owned())];
    let ended = run(&["console"], &wrong).await;
    ended.failed_saying(&["configuration key `otlp.endpoint`"]);
    assert!(!ended.stderr.contains("hunter2"), "{}", ended.stderr);
}
