//! What the API says when it has no answer: problem details (RFC 9457), one type a kind.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use faultline_runtime::error::with_causes;
use faultline_store::StoreError;
use serde::Serialize;
use utoipa::{IntoResponses, ToSchema};

/// How long whoever is sent away should wait, in seconds.
const COME_AGAIN_S: u16 = 2;
/// How many characters of a wrong name or value are shown.
const MAX_SHOWN: usize = 200;

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum Problem {
    /// A parameter is not what it is to be.
    Parameter { field: String, value: Option<String>, reason: String },
    /// There is no such thing.
    Missing { what: String },
    /// The resource has no such method.
    Method,
    /// It was asked by a name that is not its own.
    Misdirected,
    /// Too many are asking.
    Busy,
    /// ClickHouse has no answer. Its own words are for the log.
    Store(StoreError),
}

/// Why there is no answer (RFC 9457).
#[derive(Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct ProblemDetails {
    /// What kind of problem it is: always the same for the same kind.
    #[schema(examples("urn:faultline:problem:parameter"))]
    r#type: &'static str,
    /// That in words.
    title: &'static str,
    /// The HTTP status.
    #[schema(minimum = 400, maximum = 599)]
    status: u16,
    /// What is the matter this time, and what helps.
    detail: String,
    /// The parameter that is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<String>,
    /// Its value.
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
}

/// For the document: what may be answered instead of what was asked for.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "says what there is to the document, and is never made")]
pub(crate) enum Problems {
    /// A parameter is not what it is to be.
    #[response(status = 400, content_type = "application/problem+json")]
    Parameter(#[to_schema] ProblemDetails),
    /// There is no such thing.
    #[response(status = 404, content_type = "application/problem+json")]
    Missing(#[to_schema] ProblemDetails),
    /// It was asked by a name that is not its own.
    #[response(status = 421, content_type = "application/problem+json")]
    Misdirected(#[to_schema] ProblemDetails),
    /// ClickHouse does not answer, or too many are asking. `Retry-After` says when to come again, in seconds.
    #[response(status = 503, content_type = "application/problem+json", headers(("Retry-After" = u16, description = "Seconds")))]
    Unavailable(#[to_schema] ProblemDetails),
}

impl Problem {
    pub(crate) fn details(self) -> ProblemDetails {
        let details = |status: StatusCode, (r#type, title), detail| ProblemDetails {
            r#type,
            title,
            status: status.as_u16(),
            detail,
            field: None,
            value: None,
        };
        match self {
            Problem::Parameter { field, value, reason } => {
                let (field, value) = (shortened(&field), value.map(|value| shortened(&value)));
                let detail = match &value {
                    Some(value) => format!("`{field}`: `{value}` {reason}"),
                    None => format!("`{field}` {reason}"),
                };
                let kind = ("urn:faultline:problem:parameter", "A parameter is not what it is to be");
                ProblemDetails { field: Some(field), value, ..details(StatusCode::BAD_REQUEST, kind, detail) }
            }
            Problem::Missing { what } => details(
                StatusCode::NOT_FOUND,
                ("urn:faultline:problem:missing", "There is no such thing"),
                format!("There is no {}.", shortened(&what)),
            ),
            Problem::Method => {
                let kind = ("urn:faultline:problem:method", "There is no such method");
                details(StatusCode::METHOD_NOT_ALLOWED, kind, "Everything here is read with GET.".into())
            }
            Problem::Misdirected => {
                let kind = ("urn:faultline:problem:misdirected", "This is not the host that was asked for");
                let detail = "This is Faultline's console. Ask it by its address, by `localhost`, or by a name in `console.hosts`.";
                details(StatusCode::MISDIRECTED_REQUEST, kind, detail.into())
            }
            Problem::Busy => {
                let kind = ("urn:faultline:problem:busy", "Too many are asking");
                details(StatusCode::SERVICE_UNAVAILABLE, kind, "Too many questions wait for an answer. Try again in a moment.".into())
            }
            Problem::Store(error) => {
                tracing::warn!(reason = with_causes(&error), "a question was not answered");
                let kind = ("urn:faultline:problem:store", "ClickHouse does not answer");
                let detail = "ClickHouse gave no answer in time. Try again in a moment; if it goes on, ask for less time.";
                details(StatusCode::SERVICE_UNAVAILABLE, kind, detail.into())
            }
        }
    }
}

/// A value as far as it helps to see it.
fn shortened(value: &str) -> String {
    match value.char_indices().nth(MAX_SHOWN) {
        Some((end, _)) => format!("{}…", value.get(..end).unwrap_or_default()),
        None => value.into(),
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Problem {
        Problem::Store(error)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let details = self.details();
        let status = StatusCode::from_u16(details.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(details)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, COME_AGAIN_S.into());
        }
        response
    }
}
