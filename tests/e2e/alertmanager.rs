//! A real Alertmanager, and what it tells.

use std::io::Write;
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use axum::extract::State;
use axum::routing::post;
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::process::{Child, Command};

use crate::program::eventually;
use crate::sandbox::{port, scratch};
use crate::services::http;

/// An Alertmanager that tells at once, and only once, what it is sent.
pub(crate) struct Alertmanager {
    pub(crate) url: String,
    told: Arc<Mutex<Vec<Value>>>,
    _child: Child,
    _directory: TempDir,
}

impl Alertmanager {
    /// Ready; nothing where this machine has none.
    pub(crate) async fn start() -> Option<Alertmanager> {
        let told = Arc::<Mutex<Vec<Value>>>::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let receiver = listener.local_addr().unwrap();
        let app = axum::Router::new().route("/", post(take)).with_state(Arc::clone(&told));
        tokio::spawn(async move { axum::serve(listener, app).await });
        let directory = scratch("alertmanager");
        let config = format!(
            "route:\n  receiver: here\n  group_by: ['...']\n  group_wait: 0s\n  group_interval: 1s\n  repeat_interval: 1h\n\
             receivers:\n- name: here\n  webhook_configs:\n  - url: http://{receiver}/\n    send_resolved: true\n"
        );
        std::fs::write(directory.path().join("alertmanager.yml"), config).unwrap();
        let address = format!("127.0.0.1:{}", port());
        let started = Command::new("prometheus-alertmanager")
            .current_dir(directory.path())
            .args(["--config.file=alertmanager.yml", "--storage.path=data", "--cluster.listen-address="])
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn();
        let child = match started {
            Ok(child) => child,
            Err(error) => {
                // Not with a macro: what those print is not shown of a test that passes.
                let said = format!("NOT TESTED: prometheus-alertmanager cannot be started ({error}); `make test` installs Debian's\n");
                std::io::stderr().write_all(said.as_bytes()).unwrap();
                return None;
            }
        };
        let url = format!("http://{address}");
        let is_ready = async || http().get(format!("{url}/-/ready")).send().await.ok().filter(|answer| answer.status().is_success());
        eventually("Alertmanager is ready", is_ready).await;
        Some(Alertmanager { url, told, _child: child, _directory: directory })
    }

    /// What it told so far, in its order.
    pub(crate) fn told(&self) -> Vec<Value> {
        self.told.lock().unwrap().clone()
    }
}

async fn take(State(told): State<Arc<Mutex<Vec<Value>>>>, body: String) {
    told.lock().unwrap().push(serde_json::from_str(&body).unwrap());
}
