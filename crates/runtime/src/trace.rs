//! One trace from the gateway to the row: how a span's identity travels between processes.
//!
//! It travels as the `traceparent` of W3C Trace Context (recommendation of 23 November 2021, section 3.2), in a header of a Kafka record.

use std::collections::HashMap;

use opentelemetry::propagation::TextMapPropagator;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

const TRACE_PARENT: &str = "traceparent";

/// The span's `traceparent`. None where the process has no telemetry.
#[must_use]
pub fn parent_of(span: &Span) -> Option<String> {
    let mut carrier = HashMap::new();
    TraceContextPropagator::new().inject_context(&span.context(), &mut carrier);
    carrier.remove(TRACE_PARENT)
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;
    use crate::telemetry;

    #[test]
    fn a_span_and_the_spans_in_it_are_of_one_trace() {
        tracing::subscriber::with_default(tracing_subscriber::registry().with(telemetry::spans()), || {
            let outer = tracing::info_span!("outer");
            let inner = outer.in_scope(|| tracing::info_span!("inner"));
            let (outer, inner) = (parent_of(&outer).unwrap(), parent_of(&inner).unwrap());
            let trace = |traceparent: &str| traceparent.split('-').nth(1).unwrap().to_owned();
            assert_eq!((trace(&outer).len(), trace(&outer)), (32, trace(&inner)));
            assert_ne!(trace(&outer), "0".repeat(32));
            assert_ne!(outer, inner);
        });
    }

    #[test]
    fn without_telemetry_there_is_no_trace() {
        assert_eq!(parent_of(&tracing::info_span!("lonely")), None);
    }
}
