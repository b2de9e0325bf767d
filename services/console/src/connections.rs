//! Connections of browsers: not more than there is room for, and none that stays without asking anything.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long a connection may be silent until the head of a request is there: longer than the page's pauses.
const HEAD_WITHIN: Duration = Duration::from_secs(45);
/// Pause after a connection could not be accepted: mostly for want of file descriptors, which does not pass at once.
const PAUSE: Duration = Duration::from_secs(1);

/// Serves `most` connections at one moment until `stop`; then answers that were begun are finished.
pub(crate) async fn serve(listener: TcpListener, app: Router, most: usize, stop: CancellationToken) {
    let room = Arc::new(Semaphore::new(most));
    let open = TaskTracker::new();
    let accepting = async {
        while let Ok(permit) = Arc::clone(&room).acquire_owned().await {
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    sleep(PAUSE).await;
                    continue;
                }
            };
            let service = TowerToHyperService::new(app.clone());
            let mut server = http1::Builder::new();
            let serving = server.timer(TokioTimer::new()).header_read_timeout(HEAD_WITHIN).serve_connection(TokioIo::new(stream), service);
            let stop = stop.clone();
            open.spawn(async move {
                let mut serving = std::pin::pin!(serving);
                // How a connection ends is nobody's business but the browser's.
                tokio::select! {
                    _ = serving.as_mut() => {}
                    () = stop.cancelled() => {
                        serving.as_mut().graceful_shutdown();
                        let _ = serving.await;
                    }
                }
                drop(permit);
            });
        }
    };
    tokio::select! {
        () = accepting => {}
        () = stop.cancelled() => {}
    }
    open.close();
    open.wait().await;
}
