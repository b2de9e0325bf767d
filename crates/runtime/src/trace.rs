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

/// The span's `traceparent`. None where the process has no telemetry.
#[must_use]
pub fn parent_of(span: &Span) -> Option<String> {
    let mut carrier = HashMap::new();
    TraceContextPropagator::new().inject_context(&span.context(), &mut carrier);
    carrier.remove(TRACE_PARENT)
}

/// Makes the span a child of the one that `traceparent` names. One that cannot be read is passed over, as section 3.2.2.1 asks.
pub fn continue_from(span: &Span, traceparent: &str) {
    let carrier = HashMap::from([(TRACE_PARENT.to_owned(), traceparent.to_owned())]);
    let context = TraceContextPropagator::new().extract(&carrier);
    if context.span().span_context().is_valid() {
        // Refused only where the process has no telemetry, and then there is nothing to continue.
        let _ = span.set_parent(context);
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;
    use crate::telemetry;

    #[test]
    fn a_trace_goes_on_in_the_next_process() {
        tracing::subscriber::with_default(tracing_subscriber::registry().with(telemetry::spans()), || {
            let sent = parent_of(&tracing::info_span!("sender")).unwrap();
            let receiver = tracing::info_span!("receiver");
            continue_from(&receiver, &sent);
            let received = parent_of(&receiver).unwrap();
            let trace = |traceparent: &str| traceparent.split('-').nth(1).unwrap().to_owned();
            assert_eq!(trace(&sent).len(), 32);
            assert_ne!(trace(&sent), "0".repeat(32));
            assert_eq!(trace(&sent), trace(&received));
            assert_ne!(sent, received);
        });
    }

    #[test]
    fn what_is_no_trace_begins_a_new_one() {
        tracing::subscriber::with_default(tracing_subscriber::registry().with(telemetry::spans()), || {
            for nonsense in ["", "00-zz-11-01", "00-00000000000000000000000000000000-0000000000000000-01"] {
                let span = tracing::info_span!("receiver");
                continue_from(&span, nonsense);
                assert!(parent_of(&span).is_some(), "{nonsense}");
            }
        });
    }

    #[test]
    fn without_telemetry_there_is_no_trace() {
        assert_eq!(parent_of(&tracing::info_span!("lonely")), None);
    }
}
