//! Keeps child processes running: restarts what dies, gives up on what keeps dying, stops all of them, and leaves none behind.
//!
//! No orphans, whatever happens to this process: the kernel kills a child when the thread that started it ends
//! (`PR_SET_PDEATHSIG`, set by util-linux's `setpriv`). So children are started by a thread that does nothing else and lives as long as they do.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// A child that dies is started again this often within [`RESTART_WINDOW`].
const RESTARTS: usize = 5;
/// See [`RESTARTS`].
const RESTART_WINDOW: Duration = Duration::from_secs(600);
/// Pause before the first restart of a window; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// Lines of its log that a given-up child's error shows.
const LOG_LINES: usize = 15;
/// Most of a log that is read to find its last lines.
const LOG_TAIL_BYTES: u64 = 32 * 1024;

/// Run by `sh` between `setpriv` and the program: if this process was killed before the kernel knew that the child must not outlive it,
/// the child has another parent already, and ends here. `$0` is our process id.
const STILL_OURS: &str = r#"[ "$PPID" = "$0" ] && exec "$@""#;

/// A program to keep running.
#[derive(Clone, Debug)]
pub(crate) struct ChildSpec {
    /// What people call it.
    pub(crate) name: &'static str,
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<OsString>,
    pub(crate) directory: PathBuf,
    /// Where its standard output and error go; begun anew at every start.
    pub(crate) output: PathBuf,
    /// The log that it writes itself.
    pub(crate) log: PathBuf,
    /// How long it may take to stop before it is killed.
    pub(crate) grace: Duration,
}

/// A child that could not be kept running.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{name} {reason}{}{log_lines}", if log_lines.is_empty() { "" } else { "; its last words:\n" })]
pub struct GaveUp {
    /// What people call it.
    pub name: &'static str,
    /// How it ended, and how often.
    pub reason: String,
    /// The end of its output and of its log.
    pub log_lines: String,
}

/// How children are told to end.
#[derive(Clone, Debug)]
struct Orders {
    /// Ask them, and wait.
    stop: CancellationToken,
    /// Do not ask them. Whoever is killed is stopped too.
    kill: CancellationToken,
}

impl Orders {
    fn new() -> Orders {
        let kill = CancellationToken::new();
        Orders { stop: kill.child_token(), kill }
    }
}

/// Runs children until it is told to stop.
#[derive(Debug)]
pub(crate) struct Supervisor {
    orders: Orders,
    gave_up: watch::Receiver<Option<GaveUp>>,
    /// Closed when the last child has ended.
    ended: watch::Receiver<()>,
}

impl Supervisor {
    pub(crate) fn start(children: Vec<ChildSpec>) -> io::Result<Supervisor> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let orders = Orders::new();
        let (gave_up_sender, gave_up) = watch::channel(None);
        let (ended_sender, ended) = watch::channel(());
        let supervision = supervise_all(children, orders.clone(), gave_up_sender);
        thread::Builder::new().name("supervisor".into()).spawn(move || {
            runtime.block_on(supervision);
            drop(ended_sender);
        })?;
        Ok(Supervisor { orders, gave_up, ended })
    }

    /// Waits until a child could not be kept running.
    pub(crate) async fn gave_up(&self) -> GaveUp {
        let mut receiver = self.gave_up.clone();
        let given_up = receiver.wait_for(Option::is_some).await.ok().and_then(|value| value.clone());
        given_up.unwrap_or_else(|| supervision_ended("the supervisor"))
    }

    /// Stops every child, and waits until they have ended.
    pub(crate) async fn stop(self) {
        self.orders.stop.cancel();
        self.end().await;
    }

    /// Kills every child, as the loss of its machine would, and waits until they have ended.
    pub(crate) async fn kill(self) {
        self.orders.kill.cancel();
        self.end().await;
    }

    async fn end(mut self) {
        while self.ended.changed().await.is_ok() {}
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.orders.stop.cancel();
    }
}

async fn supervise_all(children: Vec<ChildSpec>, orders: Orders, gave_up: watch::Sender<Option<GaveUp>>) {
    let mut supervised = JoinSet::new();
    for child in children {
        let orders = orders.clone();
        let gave_up = gave_up.clone();
        supervised.spawn(async move {
            if let Err(given_up) = supervise(&child, &orders).await {
                gave_up.send_replace(Some(given_up));
            }
        });
    }
    while let Some(ended) = supervised.join_next().await {
        if let Err(error) = ended {
            gave_up.send_replace(Some(supervision_ended(&error.to_string())));
        }
    }
}

fn supervision_ended(reason: &str) -> GaveUp {
    GaveUp { name: "supervision", reason: format!("ended by itself ({reason})"), log_lines: String::new() }
}

/// Runs one child until it is told to end, again and again if need be.
async fn supervise(spec: &ChildSpec, orders: &Orders) -> Result<(), GaveUp> {
    let mut restarts = RestartBudget::default();
    loop {
        let mut child = start(spec).map_err(|error| give_up(spec, format!("cannot be started ({error})")))?;
        tracing::info!(pid = child.id(), "{} started", spec.name);
        let status = tokio::select! {
            status = child.wait() => status,
            () = orders.stop.cancelled() => {
                terminate(spec, &mut child, orders).await;
                return Ok(());
            }
        };
        let ended = describe(status);
        let Some(pause) = restarts.take(Instant::now()) else {
            let minutes = RESTART_WINDOW.as_secs() / 60;
            return Err(give_up(spec, format!("died {} times within {minutes} minutes, at last with {ended}", RESTARTS + 1)));
        };
        tracing::warn!(ended, restarts = restarts.used(), "{} died, starting it again", spec.name);
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = orders.stop.cancelled() => return Ok(()),
        }
    }
}

fn start(spec: &ChildSpec) -> io::Result<Child> {
    let output = File::create(&spec.output)?;
    guarded(&spec.program)
        .args(&spec.arguments)
        .current_dir(&spec.directory)
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .spawn()
}

/// A command that does not outlive this process, nor the thread that starts it, nor its own handle.
pub(crate) fn guarded(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL", "--", "sh", "-c", STILL_OURS])
        .arg(std::process::id().to_string())
        .arg(program)
        // File names are UTF-8, for Java as well.
        .env("LC_ALL", "C.UTF-8")
        // A process group of its own, so that a terminal's Ctrl-C reaches this process only, which then stops its children in order.
        .process_group(0)
        .kill_on_drop(true);
    command
}

async fn terminate(spec: &ChildSpec, child: &mut Child, orders: &Orders) {
    if orders.kill.is_cancelled() {
        return end_at_once(spec, child).await;
    }
    let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) else { return };
    let asked = Instant::now();
    if let Err(error) = kill(Pid::from_raw(pid), Signal::SIGTERM) {
        tracing::warn!(pid, %error, "{} cannot be asked to stop", spec.name);
    }
    match tokio::time::timeout(spec.grace, child.wait()).await {
        Ok(_) => tracing::info!("{} stopped after {:.1} s", spec.name, asked.elapsed().as_secs_f32()),
        Err(_) => {
            tracing::warn!(seconds = spec.grace.as_secs(), "{} did not stop in time and is killed", spec.name);
            end_at_once(spec, child).await;
        }
    }
}

async fn end_at_once(spec: &ChildSpec, child: &mut Child) {
    if let Err(error) = child.kill().await {
        tracing::warn!(pid = child.id(), %error, "{} cannot be killed", spec.name);
    }
}

fn describe(status: io::Result<ExitStatus>) -> String {
    status.map_or_else(|error| format!("an unknown status ({error})"), |status| status.to_string())
}

fn give_up(spec: &ChildSpec, reason: String) -> GaveUp {
    let mut lines = Vec::new();
    for path in [&spec.output, &spec.log] {
        let tail = tail(path);
        if !tail.is_empty() {
            lines.push(format!("  {}:", path.display()));
            lines.extend(tail.into_iter().map(|line| format!("    {line}")));
        }
    }
    GaveUp { name: spec.name, reason, log_lines: lines.join("\n") }
}

fn tail(path: &Path) -> Vec<String> {
    let read = || -> io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let text = String::from_utf8_lossy(&read().unwrap_or_default()).into_owned();
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty() && !is_stack_frame(line)).collect();
    lines.get(lines.len().saturating_sub(LOG_LINES)..).unwrap_or_default().iter().map(ToString::to_string).collect()
}

/// Whether a line is one of the many that follow an error's message: `at org.apache.kafka...` or `14. DB::Context::...`.
fn is_stack_frame(line: &str) -> bool {
    let line = line.trim_start();
    let after_number = line.trim_start_matches(|character: char| character.is_ascii_digit());
    line.starts_with("at ") || (after_number.len() < line.len() && after_number.starts_with(". "))
}

/// How often a child may still be restarted.
#[derive(Debug, Default)]
struct RestartBudget {
    /// When it was restarted, within the window.
    taken: VecDeque<Instant>,
}

impl RestartBudget {
    /// Takes one restart and returns the pause before it, or nothing when all are used up.
    fn take(&mut self, now: Instant) -> Option<Duration> {
        while self.taken.front().is_some_and(|taken| now.duration_since(*taken) >= RESTART_WINDOW) {
            self.taken.pop_front();
        }
        let used = u32::try_from(self.taken.len()).ok()?;
        if self.taken.len() >= RESTARTS {
            return None;
        }
        self.taken.push_back(now);
        Some(FIRST_PAUSE * 2u32.pow(used))
    }

    fn used(&self) -> usize {
        self.taken.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(directory: &Path, script: &str) -> ChildSpec {
        ChildSpec {
            name: "Example",
            program: "/bin/sh".into(),
            arguments: vec!["-c".into(), script.into()],
            directory: directory.into(),
            output: directory.join("output"),
            log: directory.join("log"),
            grace: Duration::from_millis(200),
        }
    }

    #[test]
    fn five_restarts_in_ten_minutes_and_no_more() {
        let mut budget = RestartBudget::default();
        let start = Instant::now();
        let minute = Duration::from_secs(60);
        let pauses: Vec<_> = (0..5).map(|minutes| budget.take(start + minute * minutes)).collect();
        assert_eq!(pauses, [250, 500, 1000, 2000, 4000].map(|millis| Some(Duration::from_millis(millis))));
        assert_eq!(budget.take(start + minute * 9), None);
        // The first restart is ten minutes old, so there is one again, and only one.
        assert!(budget.take(start + minute * 10).is_some());
        assert_eq!(budget.take(start + minute * 10), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_child_that_keeps_dying_is_given_up_with_its_last_words() {
        let directory = tempfile::tempdir().unwrap();
        let spec = shell(
            directory.path(),
            "echo started >> starts; echo first; echo the disk is gone >&2; echo '  at Disk.java:1'; echo '12. Disk::read'; exit 3",
        );
        let given_up = supervise(&spec, &Orders::new()).await.unwrap_err();
        assert_eq!(std::fs::read_to_string(directory.path().join("starts")).unwrap().lines().count(), 6);
        assert_eq!(given_up.reason, "died 6 times within 10 minutes, at last with exit status: 3");
        assert!(
            given_up.to_string().contains("its last words:\n") && given_up.to_string().ends_with("first\n    the disk is gone"),
            "{given_up}"
        );
    }

    #[tokio::test]
    async fn a_program_that_is_missing_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let spec = ChildSpec { directory: directory.path().join("missing"), ..shell(directory.path(), "") };
        let given_up = supervise(&spec, &Orders::new()).await.unwrap_err();
        assert!(given_up.reason.contains("cannot be started"), "{given_up}");
    }

    /// Runs a shell, and waits until it has written down its process id.
    async fn running(directory: &Path, script: &str) -> (Supervisor, Pid) {
        let supervisor = Supervisor::start(vec![shell(directory, script)]).unwrap();
        loop {
            match std::fs::read_to_string(directory.join("pid")).ok().and_then(|text| text.trim().parse().ok()) {
                Some(pid) => return (supervisor, Pid::from_raw(pid)),
                None => tokio::task::yield_now().await,
            }
        }
    }

    #[tokio::test]
    async fn a_child_that_does_not_stop_is_killed() {
        let directory = tempfile::tempdir().unwrap();
        let (supervisor, pid) = running(directory.path(), "trap '' TERM; echo $$ > pid; while :; do sleep 0.05; done").await;
        assert_eq!(kill(pid, None), Ok(()));
        supervisor.stop().await;
        assert_eq!(kill(pid, None), Err(nix::errno::Errno::ESRCH));
    }

    #[tokio::test]
    async fn who_is_killed_is_not_asked_and_not_started_again() {
        let directory = tempfile::tempdir().unwrap();
        let script = "trap 'touch asked' TERM; echo started >> starts; echo $$ > pid; while :; do sleep 0.05; done";
        let (supervisor, pid) = running(directory.path(), script).await;
        supervisor.kill().await;
        assert_eq!(kill(pid, None), Err(nix::errno::Errno::ESRCH));
        assert!(!directory.path().join("asked").exists());
        assert_eq!(std::fs::read_to_string(directory.path().join("starts")).unwrap().lines().count(), 1);
    }
}
