//! Why a call is not answered as asked, and what the terminal is told: the one place where errors become statuses.

use std::time::Duration;

use faultline_stream::NotTaken;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::admission::Rejection;
use crate::counts::Fate;

/// Bounds of the delay after which a terminal that was sent away comes back.
const RETRY_DELAY_MS: std::ops::Range<u64> = 1000..4000;

/// Why a call is not answered as asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Problem {
    /// No token, not one, or one that is not known (any more).
    #[error("the call needs `authorization: Bearer <token>` with a token that is known")]
    Unauthenticated,
    /// The message or the batch can never be taken.
    #[error(transparent)]
    Invalid(#[from] Rejection),
    /// Too many batches are waiting for Kafka.
    #[error("too much is on its way at the moment; send the same batch again later")]
    Full,
    /// The terminal sends more than it may.
    #[error("this terminal sends more than it may; send the same batch again later")]
    TooFast {
        /// When there is room for the same batch again.
        delay: Duration,
    },
    /// It has as many of these at one moment as it may.
    #[error("this terminal has as many {0} as it may; send the same batch again later")]
    TooMany(&'static str),
    /// Kafka does not take batches.
    #[error("batches cannot be stored at the moment; send the same batch again later")]
    Unavailable,
    /// The gateway stops.
    #[error("the gateway is going down; connect again")]
    GoingDown,
    /// The terminal has gone before it said all.
    #[error("the call was given up")]
    Gone,
}

impl From<NotTaken> for Problem {
    fn from(reason: NotTaken) -> Problem {
        match reason {
            NotTaken::Full => Problem::Full,
            NotTaken::Unavailable { .. } | NotTaken::Unplaced { .. } => Problem::Unavailable,
        }
    }
}

impl Problem {
    /// The statuses of `code`, by name.
    pub(crate) const STATUSES: [&str; 5] = ["UNAUTHENTICATED", "INVALID_ARGUMENT", "RESOURCE_EXHAUSTED", "UNAVAILABLE", "CANCELLED"];

    /// What a batch that meets it is counted as. (None meets the last two: they come between batches.)
    pub(crate) fn fate(&self) -> Fate {
        match self {
            Problem::Unauthenticated => Fate::Unauthenticated,
            Problem::Invalid(_) => Fate::Invalid,
            Problem::Full => Fate::Shed,
            Problem::TooFast { .. } | Problem::TooMany(_) => Fate::Limited,
            Problem::Unavailable | Problem::GoingDown | Problem::Gone => Fate::Unavailable,
        }
    }

    /// The status of a call that it ends, and the name of that in gRPC's documentation.
    pub(crate) fn code(&self) -> (Code, &'static str) {
        match self {
            Problem::Unauthenticated => (Code::Unauthenticated, "UNAUTHENTICATED"),
            Problem::Invalid(_) => (Code::InvalidArgument, "INVALID_ARGUMENT"),
            Problem::Full | Problem::TooFast { .. } | Problem::TooMany(_) => (Code::ResourceExhausted, "RESOURCE_EXHAUSTED"),
            Problem::Unavailable | Problem::GoingDown => (Code::Unavailable, "UNAVAILABLE"),
            Problem::Gone => (Code::Cancelled, "CANCELLED"),
        }
    }
}

impl From<Problem> for Status {
    fn from(problem: Problem) -> Status {
        let details = match &problem {
            Problem::Unauthenticated | Problem::Gone => ErrorDetails::new(),
            Problem::Invalid(rejection) => ErrorDetails::with_bad_request_violation(rejection.field, rejection.description.as_str()),
            Problem::TooFast { delay } => retry_after(*delay),
            Problem::Full | Problem::TooMany(_) | Problem::Unavailable | Problem::GoingDown => {
                // Those who are sent away together are not to come back together.
                retry_after(Duration::from_millis(fastrand::u64(RETRY_DELAY_MS)))
            }
        };
        Status::with_error_details(problem.code().0, problem.to_string(), details)
    }
}

fn retry_after(delay: Duration) -> ErrorDetails {
    ErrorDetails::with_retry_info(Some(delay))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_comes_with_a_delay_and_what_does_not_with_the_field() {
        let rejection = Rejection { field: "batch.events", description: "are 501, at most 500 are taken".into() };
        let status = Status::from(Problem::Invalid(rejection));
        assert_eq!((status.code(), status.message()), (Code::InvalidArgument, "batch.events: are 501, at most 500 are taken"));
        assert_eq!(status.get_error_details().bad_request().unwrap().field_violations[0].field, "batch.events");

        for (problem, code) in [
            (Problem::Full, Code::ResourceExhausted),
            (Problem::TooMany("calls"), Code::ResourceExhausted),
            (Problem::Unavailable, Code::Unavailable),
            (Problem::GoingDown, Code::Unavailable),
        ] {
            let name = problem.code().1;
            let status = Status::from(problem);
            assert_eq!(status.code(), code);
            assert!(Problem::STATUSES.contains(&name));
            let delay = status.get_error_details().retry_info().unwrap().retry_delay.unwrap();
            assert!(RETRY_DELAY_MS.contains(&u64::try_from(delay.as_millis()).unwrap()), "{delay:?}");
        }
        // Of one terminal it is known when.
        let delay = Duration::from_millis(1500);
        let status = Status::from(Problem::TooFast { delay });
        assert_eq!((status.code(), status.get_error_details().retry_info().unwrap().retry_delay), (Code::ResourceExhausted, Some(delay)));
    }
}
