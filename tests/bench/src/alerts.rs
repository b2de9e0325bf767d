//! How long it takes until somebody is told of a fault: the whole road, as `faultline up` runs it, with a simulated fleet in which one thing after the other fails as a
//! whole. Where attempts fail, from the first that does; where they are only missing, from the beginning of the fault.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail, ensure};
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

/// How long one step of a run may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(240);
/// When the first fault begins, how long each lasts, and how long all is well before the next.
const FIRST_S: u64 = 30;
const LASTS_S: u64 = 75;
const WELL_S: u64 = 75;

/// Something that fails.
struct Kind {
    fault: &'static str,
    /// What the simulated fleet says when it begins.
    said: &'static str,
    /// The part of the fleet that is to be named.
    slice: &'static str,
    /// Whether attempts fail, so that there is a first; they may also only be missing, or fail long after they began.
    is_seen_failing: bool,
    /// Names of the median and of what nineteen of twenty are not above.
    figures: [&'static str; 2],
    /// What the median is to be at most, in seconds; nothing where it is only stated.
    most_s: Option<f64>,
}

/// As busy as the scenario that `make run` plays: of 1,200 sales a minute, some 67 are of the bank that fails first.
const KINDS: [Kind; 7] = [
    Kind {
        fault: "kind = 'bank_outage'\nissuer = 'bocom'",
        said: "(bocom) fails",
        slice: "issuer=bocom",
        is_seen_failing: true,
        figures: ["alert_s_bank_outage_p50", "alert_s_bank_outage_p95"],
        most_s: Some(20.0),
    },
    Kind {
        fault: "kind = 'refusing_bank'\nissuer = 'ccb'",
        said: "(ccb) fails",
        slice: "issuer=ccb",
        is_seen_failing: true,
        figures: ["alert_s_refusing_bank_p50", "alert_s_refusing_bank_p95"],
        most_s: None,
    },
    Kind {
        fault: "kind = 'silent_bank'\nissuer = 'abc'",
        said: "(abc) falls silent",
        slice: "issuer=abc",
        is_seen_failing: false,
        figures: ["alert_s_silent_bank_p50", "alert_s_silent_bank_p95"],
        most_s: None,
    },
    Kind {
        fault: "kind = 'host_down'\nhost = 'pos-2'",
        said: "host pos-2",
        slice: "acquirer=48020000&host=pos-2",
        is_seen_failing: true,
        figures: ["alert_s_host_down_p50", "alert_s_host_down_p95"],
        most_s: None,
    },
    Kind {
        fault: "kind = 'carrier_outage'\ncarrier = 'china-telecom'",
        said: "carrier china-telecom fails",
        slice: "carrier=china-telecom",
        is_seen_failing: true,
        figures: ["alert_s_carrier_outage_p50", "alert_s_carrier_outage_p95"],
        most_s: None,
    },
    Kind {
        fault: "kind = 'key_fault'\nmodel = 'LANDI A8'\nfirmware = 'V1.5.2'",
        said: "LANDI A8 with firmware V1.5.2",
        slice: "firmware=V1.5.2&model=LANDI A8",
        is_seen_failing: true,
        figures: ["alert_s_key_fault_p50", "alert_s_key_fault_p95"],
        most_s: None,
    },
    Kind {
        fault: "kind = 'power_cut'\nregion = '440000'",
        said: "region 440000 has no power",
        slice: "region=440000",
        is_seen_failing: false,
        figures: ["alert_s_power_cut_p50", "alert_s_power_cut_p95"],
        most_s: None,
    },
];

/// Measures it, in so many runs through all kinds.
pub(crate) async fn measure(program: &Path, runs: u32) -> anyhow::Result<Report> {
    ensure!(runs > 0, "there are no runs");
    let mut seconds: Vec<Vec<f64>> = KINDS.iter().map(|_| Vec::new()).collect();
    for run in 1..=runs {
        faults(program, run, &mut seconds).await.with_context(|| format!("run {run} of {runs}"))?;
    }
    let mut figures = Vec::new();
    for (kind, mut of_kind) in KINDS.iter().zip(seconds) {
        of_kind.sort_by(f64::total_cmp);
        // The smallest that so many of a hundred are not above.
        let percentile =
            |percent: usize| of_kind.get((of_kind.len() * percent).div_ceil(100).max(1) - 1).copied().context("nobody was told");
        let [median, slowest] = kind.figures;
        figures.push(match kind.most_s {
            Some(most) => Figure::at_most((median, "s"), most, percentile(50)?),
            None => Figure::stated((median, "s"), percentile(50)?),
        });
        figures.push(Figure::stated((slowest, "s"), percentile(95)?));
    }
    Ok(Report { bench: "alerts", figures })
}

fn scenario(run: u32) -> String {
    let mut scenario = format!(
        "title = 'One thing after the other'\nseed = {run}\n[fleet]\nterminals = 1000\ntransactions_per_minute = 1200.0\nrhythm = 0.0\n[history]\nweeks = 2\n"
    );
    for (place, kind) in (0..).zip(&KINDS) {
        let start = FIRST_S + place * (LASTS_S + WELL_S);
        scenario.push_str(&format!("[[fault]]\n{}\nstart = '{start}s'\nduration = '{LASTS_S}s'\n", kind.fault));
    }
    scenario
}

/// Lets everything fail once, and takes in how long it took each time until the webhook was told.
async fn faults(program: &Path, run: u32, seconds: &mut [Vec<f64>]) -> anyhow::Result<()> {
    let directory = tempfile::Builder::new().prefix("faultline-bench-").tempdir()?;
    let played = directory.path().join("scenario.toml");
    std::fs::write(&played, scenario(run))?;
    let data = directory.path().join("data");
    let mut webhook = Webhook::start().await?;
    let mut up = Up::start(program, &["--simulate", path(&played)?, "--data-dir", path(&data)?], &webhook.url)?;
    for (kind, seconds) in KINDS.iter().zip(seconds) {
        up.until_it_says(kind.said).await?;
        let begin = now();
        let told = webhook.until_told_of(kind.slice).await.with_context(|| format!("of {}", kind.slice))?;
        let from = if kind.is_seen_failing { first_failure(&data, kind, begin).await? } else { begin };
        let took = told.as_secs_f64() - from.as_secs_f64();
        say(&format!("alerts: run {run}: {}: told after {took:.1} s\n", kind.slice));
        seconds.push(took);
    }
    up.stop().await
}

/// When the first attempt of a slice failed that completed after its fault began. One that would have failed anyway is taken for it: then it took longer than is said.
async fn first_failure(data: &Path, kind: &Kind, begin: Duration) -> anyhow::Result<Duration> {
    let password = std::fs::read_to_string(data.join("clickhouse/password"))?;
    let clickhouse = ClickHouseConfig {
        url: format!("http://127.0.0.1:{CLICKHOUSE_PORT}").parse()?,
        user: "faultline".into(),
        password: password.trim().to_owned().into(),
        ..ClickHouseConfig::default()
    };
    let failed = Wanted {
        tenant: "demo",
        time: u32::try_from(begin.as_secs())?..u32::MAX,
        terminal: None,
        slice: &kind.slice.parse::<Slice>()?,
        cause: None,
        failed: true,
        limit: 10_000,
    };
    let failed = Database::new(&clickhouse)?.reported(&failed).await?;
    let first = failed.iter().map(|outcome| outcome.completed_at).min().context("no transaction failed")?;
    Ok(Duration::from_millis(u64::try_from(first)?).max(begin))
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
    /// What fails, by dimension.
    slice: BTreeMap<String, String>,
    /// Whether it is over.
    is_closed: bool,
    /// Since 1970-01-01 UTC.
    at: Duration,
}

impl Webhook {
    async fn start() -> anyhow::Result<Webhook> {
        let (sender, told) = mpsc::channel(100);
        let take = async move |body: String| {
            let notice: Value = serde_json::from_str(&body).unwrap_or_default();
            let slice = notice.get("slice").cloned().and_then(|slice| serde_json::from_value(slice).ok()).unwrap_or_default();
            let is_closed = notice.get("change").and_then(Value::as_str) == Some("closed");
            // Nobody waits for more than there is room for.
            let _ = sender.try_send(Told { slice, is_closed, at: now() });
        };
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}/", listener.local_addr()?);
        tokio::spawn(async move { axum::serve(listener, Router::new().route("/", post(take))).await });
        Ok(Webhook { url, told })
    }

    /// Waits until it is told of a slice, and says when; says what else it is told meanwhile.
    async fn until_told_of(&mut self, slice: &str) -> anyhow::Result<Duration> {
        let wanted = slice.parse::<Slice>()?.values().map(|(dimension, value)| (dimension.to_owned(), value.to_owned())).collect();
        let telling = async {
            loop {
                let told = self.told.recv().await.context("the webhook is gone")?;
                match (told.slice == wanted, told.is_closed) {
                    (true, false) => return Ok(told.at),
                    (false, false) => say(&format!("alerts: told of {:?} while {slice} fails\n", told.slice)),
                    _ => {}
                }
            }
        };
        timeout(PATIENCE, telling).await.context("nobody was told")?
    }
}

fn path(path: &Path) -> anyhow::Result<&str> {
    path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))
}

/// Since 1970-01-01 UTC.
fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
