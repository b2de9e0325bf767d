//! By which names the console may be asked. A page of others can point a name of its own at this machine and make a browser ask it (DNS rebinding): the
//! browser then says that name.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header;
use axum::http::uri::Authority;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::problem::Problem;

/// Names beside addresses and `localhost`.
#[derive(Clone, Debug)]
pub(crate) struct Hosts(Arc<[String]>);

impl Hosts {
    /// Those of a list that is separated by commas.
    pub(crate) fn listed(names: &str) -> Hosts {
        Hosts(names.split(',').map(|name| name.trim().to_ascii_lowercase()).filter(|name| !name.is_empty()).collect())
    }

    /// Whether it may be asked by this name, which may have a port. Addresses cannot be pointed anywhere else.
    fn has(&self, host: &str) -> bool {
        let Ok(authority) = host.parse::<Authority>() else { return false };
        // With a user before it, it is no name of a host.
        if host.contains('@') {
            return false;
        }
        let host = authority.host().to_ascii_lowercase();
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        host == "localhost" || bare.parse::<IpAddr>().is_ok() || self.0.contains(&host)
    }
}

/// Sends away who asks by another name.
pub(crate) async fn only_these(State(hosts): State<Hosts>, request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    match host {
        Some(host) if hosts.has(host) => next.run(request).await,
        _ => Problem::Misdirected.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_others_is_none_of_ours() {
        let hosts = Hosts::listed("Faultline.example, console.internal");
        for host in
            ["localhost", "localhost:18090", "127.0.0.1:18090", "[::1]:18090", "10.0.0.7", "faultline.example", "console.internal:80"]
        {
            assert!(hosts.has(host), "{host}");
        }
        for host in ["evil.example", "localhost.evil.example:18090", "127.0.0.1.evil.example", "", "a b", "evil.example@localhost/"] {
            assert!(!hosts.has(host), "{host}");
        }
        assert!(!Hosts::listed("").has("faultline.example"));
    }
}
