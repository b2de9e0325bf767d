//! How long it takes from the first transaction that a failing bank fails until the webhook is told: the whole road, as `faultline up` runs it, with a
//! simulated fleet in which the largest bank fails as a whole.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use axum::Router;
use axum::routing::post;
use faultline_store::{ClickHouseConfig, Database, Slice, Wanted};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpListener;
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::report::{Figure, Report, say};

const RUNS: usize = 5;
/// How long one step of a run may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);
/// As busy as in the scenario that `make run` plays: some 140 of 1,200 sales a minute are the bank's.
const SCENARIO: &str = "
title = 'The largest bank fails'
[fleet]
terminals = 1000
transactions_per_minute = 1200.0
rhythm = 0.0
[history]
weeks = 2
[[fault]]
kind = 'bank_outage'
issuer = 'icbc'
start = '30s'
";

/// Measures it, in outages of their own.
pub(crate) async fn measure(program: &Path) -> anyhow::Result<Report> {
    let mut seconds = Vec::new();
    for run in 1..=RUNS {
        let took = outage(program).await.with_context(|| format!("outage {run} of {RUNS}"))?;
        say(&format!("alerts: outage {run} of {RUNS}: told {took:.1} s after the first transaction that failed\n"));
        seconds.push(took);
    }
    seconds.sort_by(f64::total_cmp);
    let median = *seconds.get(RUNS / 2).context("there were no runs")?;
    let slowest = *seconds.last().context("there were no runs")?;
    let figures = vec![
        Figure::at_most(("alert_seconds_full_outage", "s"), 30.0, median),
        Figure::stated(("alert_seconds_full_outage_slowest", "s"), slowest),
    ];
    Ok(Report { bench: "alerts", figures })
}

/// Lets the bank fail once: seconds from the first transaction that it failed until the webhook was told.
async fn outage(program: &Path) -> anyhow::Result<f64> {
    let directory = tempfile::Builder::new().prefix("faultline-bench-").tempdir()?;
    let scenario = directory.path().join("scenario.toml");
    std::fs::write(&scenario, SCENARIO)?;
    let data = directory.path().join("data");
    let mut webhook = Webhook::start().await?;
    let mut up = Up::start(program, &["--simulate", path(&scenario)?, "--data-dir", path(&data)?], &webhook.url)?;
    up.until_it_says("(icbc) fails").await?;
    let begin = now();
    let told = timeout(PATIENCE, webhook.told.recv()).await.context("nobody was told")?.context("the webhook is gone")?;
    if told.slice != "icbc" {
        bail!("told of `{}` instead of icbc", told.slice);
    }
    let password = std::fs::read_to_string(data.join("clickhouse/password"))?;
    let clickhouse = ClickHouseConfig {
        url: format!("http://127.0.0.1:{CLICKHOUSE_PORT}").parse()?,
        user: "faultline".into(),
        password: password.trim().to_owned().into(),
        ..ClickHouseConfig::default()
    };
    let failed = Wanted {
        tenant: "demo",
        // The line may have been read late.
        time: u32::try_from(begin.as_secs())?.saturating_sub(2)..u32::MAX,
        terminal: None,
        slice: &"issuer=icbc".parse::<Slice>()?,
        cause: Some(faultline_proto::verdict::v1::Cause::Bank),
        failed: true,
        limit: 1000,
    };
    let failed = Database::new(&clickhouse)?.reported(&failed).await?;
    let first = failed.iter().map(|outcome| outcome.completed_at).min().context("no transaction failed")?;
    up.stop().await?;
    Ok(told.at.as_secs_f64() - Duration::from_millis(u64::try_from(first)?).as_secs_f64())
}

/// Ports that `faultline up` and what people run beside it do not use.
const CLICKHOUSE_PORT: u16 = 29_003;
const SETTINGS: [(&str, &str); 7] = [
    ("LOCAL__KAFKA_PORT", "29001"),
    ("LOCAL__KAFKA_CONTROLLER_PORT", "29002"),
    ("LOCAL__CLICKHOUSE_HTTP_PORT", "29003"),
    ("LOCAL__CLICKHOUSE_NATIVE_PORT", "29004"),
    ("GATEWAY__LISTEN", "127.0.0.1:29005"),
    ("MONITORING__LISTEN", "127.0.0.1:29006"),
    ("CONSOLE__LISTEN", "127.0.0.1:29007"),
];

/// A running `faultline up`.
struct Up {
    child: Child,
    said: BufReader<ChildStdout>,
}

impl Up {
    fn start(program: &Path, arguments: &[&str], webhook: &str) -> anyhow::Result<Up> {
        let mut child = Command::new(program)
            .arg("up")
            .args(arguments)
            .envs(SETTINGS.map(|(key, value)| (format!("FAULTLINE__{key}"), value)))
            .env("FAULTLINE__ALERTER__WEBHOOK__URL", webhook)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot run {} (`make bench` builds it)", program.display()))?;
        let said = BufReader::new(child.stdout.take().context("it has no standard output")?);
        Ok(Up { child, said })
    }

    async fn until_it_says(&mut self, what: &str) -> anyhow::Result<()> {
        let saying = async {
            let mut line = String::new();
            while self.said.read_line(&mut line).await? > 0 {
                if line.contains(what) {
                    return Ok(());
                }
                line.clear();
            }
            bail!("it ended before it said `{what}`")
        };
        timeout(PATIENCE, saying).await.with_context(|| format!("it did not say `{what}`"))?
    }

    async fn stop(mut self) -> anyhow::Result<()> {
        let pid = self.child.id().and_then(|pid| i32::try_from(pid).ok()).context("it has ended by itself")?;
        kill(Pid::from_raw(pid), Signal::SIGTERM)?;
        // What it says to the end has to go somewhere.
        let reading = async { tokio::io::copy(&mut self.said, &mut tokio::io::sink()).await };
        let (read, ended) = timeout(PATIENCE, async { tokio::join!(reading, self.child.wait()) }).await.context("it does not stop")?;
        read?;
        if ended?.success() { Ok(()) } else { bail!("it ended with an error") }
    }
}

/// Somebody who is told.
struct Webhook {
    url: String,
    told: mpsc::Receiver<Told>,
}

struct Told {
    /// The issuer of the slice, if that is what it is.
    slice: String,
    /// Since 1970-01-01 UTC.
    at: Duration,
}

impl Webhook {
    async fn start() -> anyhow::Result<Webhook> {
        let (sender, told) = mpsc::channel(100);
        let take = async move |body: String| {
            let notice: Value = serde_json::from_str(&body).unwrap_or_default();
            let slice = notice.pointer("/slice/issuer").and_then(Value::as_str).unwrap_or_default().to_owned();
            // Nobody waits for more than the first.
            let _ = sender.try_send(Told { slice, at: now() });
        };
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}/", listener.local_addr()?);
        tokio::spawn(async move { axum::serve(listener, Router::new().route("/", post(take))).await });
        Ok(Webhook { url, told })
    }
}

fn path(path: &Path) -> anyhow::Result<&str> {
    path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))
}

/// Since 1970-01-01 UTC.
fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
