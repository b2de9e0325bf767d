//! What the console counts. `/metrics` says what each figure means.

use axum::extract::{MatchedPath, Request};
use axum::middleware::Next;
use axum::response::Response;
use metrics::{Unit, counter, describe_counter, describe_histogram, histogram};
use tokio::time::Instant;

/// Tells the exporter what the figures are.
pub(crate) fn describe() {
    describe_counter!("faultline_console_requests_total", "Requests that were answered, by route and HTTP status");
    describe_histogram!("faultline_console_request_seconds", Unit::Seconds, "From the request's head until the answer's, by route");
}

/// Counts a request, by the route that it took: never by its path, of which there are as many as there are callers' ideas.
pub(crate) async fn request(request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map_or("page", MatchedPath::as_str).to_owned();
    let begin = Instant::now();
    let response = next.run(request).await;
    histogram!("faultline_console_request_seconds", "route" => route.clone()).record(begin.elapsed());
    counter!("faultline_console_requests_total", "route" => route, "status" => response.status().as_str().to_owned()).increment(1);
    response
}
