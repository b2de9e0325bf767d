//! The web page: files that are part of the program.

use std::borrow::Cow;

use axum::Router;
use axum::http::{HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use rust_embed::RustEmbed;

/// What `make` built in `dashboards/console`, or nothing.
#[derive(RustEmbed)]
#[folder = "../../dashboards/console/dist"]
struct Files;

const INDEX: &str = "index.html";
/// What is shown instead of the page where it was not built.
const NOT_BUILT: &str = "<!doctype html>
<html lang=\"en\">
<meta charset=\"utf-8\">
<title>Faultline</title>
<p>This program was built without its page: <code>cargo build</code> needs no Node.js, and <code>make build</code> builds the page first.
<p>The API is there: <a href=\"/api/v1/openapi.json\">/api/v1/openapi.json</a>
</html>
";

/// Nothing but our own files, and no page of others around ours.
const SECURITY_HEADERS: [(HeaderName, &str); 4] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'self'; img-src 'self' data:; object-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// The page, and the files that it is made of.
pub(crate) fn router() -> Router {
    Router::new().fallback(get(file))
}

async fn file(uri: Uri) -> Response {
    let path = uri.path().trim_start_matches('/');
    let path = if path.is_empty() { INDEX } else { path };
    let content = match Files::get(path) {
        Some(file) => file.data,
        None if path == INDEX => Cow::Borrowed(NOT_BUILT.as_bytes()),
        None => return (StatusCode::NOT_FOUND, "There is no such page.\n").into_response(),
    };
    // A file below `assets/` has its content's hash in its name; what else there is may change with the program.
    let caching = if path.starts_with("assets/") { "public, max-age=31536000, immutable" } else { "no-cache" };
    ([(header::CONTENT_TYPE, content_type(path)), (header::CACHE_CONTROL, caching)], content).into_response()
}

fn content_type(path: &str) -> &'static str {
    match path.rsplit_once('.').map(|(_, extension)| extension) {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "application/octet-stream",
    }
}

pub(crate) async fn with_security_headers(mut response: Response) -> Response {
    for (name, value) in SECURITY_HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}
