//! One trace from the gateway to the row: how a span's identity travels between processes.
//!
//! It travels as the `traceparent` of W3C Trace Context (recommendation of 23 November 2021, section 3.2), in a header of a Kafka record.

use std::collections::HashMap;

use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::TraceContextExt;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

const TRACE_PARENT: &str = "traceparent";

/// The span's `traceparent`, where its trace is sampled: others need not know of one that nobody sees.
#[must_use]
pub fn parent_of(span: &Span) -> Option<String> {
    let context = span.context();
    if !context.span().span_context().is_sampled() {
        return None;
    }
    let mut carrier = HashMap::new();
    TraceContextPropagator::new().inject_context(&context, &mut carrier);
    carrier.remove(TRACE_PARENT)
}

/// Makes a span that goes on with another process's trace, where that trace is sampled: none where nobody would see it.
pub fn continued(trace_parent: &str, make: impl FnOnce() -> Span) -> Option<Span> {
    let carrier = HashMap::from([(TRACE_PARENT.to_owned(), trace_parent.to_owned())]);
    let parent = TraceContextPropagator::new().extract(&carrier);
    if !parent.span().span_context().is_sampled() {
        return None;
    }
    let span = make();
    // Fails where the process has no telemetry; then nobody sees the span either.
    let _ = span.set_parent(parent);
    Some(span)
}

#[cfg(test)]
mod tests {
    use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;
    use crate::telemetry;

    #[test]
    fn a_span_and_the_spans_in_it_are_of_one_trace() {
        let everything = SdkTracerProvider::builder().with_sampler(Sampler::AlwaysOn).build();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(telemetry::spans(&everything)), || {
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
    fn a_trace_goes_on_where_it_is_sampled() {
        let everything = SdkTracerProvider::builder().with_sampler(Sampler::AlwaysOn).build();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(telemetry::spans(&everything)), || {
            let went_on = |flags: &str| {
                let parent = format!("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-{flags}");
                continued(&parent, || tracing::info_span!("record")).and_then(|span| parent_of(&span))
            };
            let own = went_on("01").unwrap();
            assert!(own.starts_with("00-0af7651916cd43dd8448eb211c80319c-") && !own.contains("b7ad6b7169203331"), "{own}");
            assert_eq!(went_on("00"), None);
            assert!(continued("nonsense", || tracing::info_span!("record")).is_none());
        });
    }

    #[test]
    fn nobody_is_told_of_a_trace_that_is_not_sampled() {
        assert_eq!(parent_of(&tracing::info_span!("lonely")), None);
        let nothing = SdkTracerProvider::builder().with_sampler(Sampler::AlwaysOff).build();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(telemetry::spans(&nothing)), || {
            assert_eq!(parent_of(&tracing::info_span!("unseen")), None);
        });
    }
}
