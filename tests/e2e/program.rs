//! `faultline` as a child process.

use std::fs::{self, File};
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use faultline_deploy::LocalConfig;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::sandbox::{PATIENCE, port, program};

/// A running `faultline`.
pub(crate) struct Faultline {
    child: Child,
    stdout: Option<BufReader<ChildStdout>>,
    stderr: JoinHandle<()>,
    /// What it has written to its standard error so far.
    said: Arc<Mutex<Vec<u8>>>,
}

/// A `faultline` that has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) stderr: String,
}

impl Faultline {
    /// Starts it with these arguments and, as environment variables, these settings.
    pub(crate) fn start(arguments: &[&str], settings: &[(&str, String)]) -> Faultline {
        Faultline::spawn(Command::new(program()).args(arguments), settings)
    }

    /// The same, with what it says appended to a file.
    pub(crate) fn start_logged(log: &Path, arguments: &[&str], settings: &[(&str, String)]) -> Faultline {
        let log = File::options().create(true).append(true).open(log).unwrap();
        Faultline::spawn_saying(Command::new(program()).args(arguments), settings, log.into())
    }

    /// The same with another search path for programs.
    pub(crate) fn start_with_path(path: &Path, arguments: &[&str], settings: &[(&str, String)]) -> Faultline {
        Faultline::spawn(Command::new(program()).args(arguments).env("PATH", path).env_remove("JAVA_HOME"), settings)
    }

    /// The same with SIGHUP ignored.
    pub(crate) fn start_under_nohup(arguments: &[&str], settings: &[(&str, String)]) -> Faultline {
        Faultline::spawn(Command::new("nohup").arg(program()).args(arguments), settings)
    }

    fn spawn(command: &mut Command, settings: &[(&str, String)]) -> Faultline {
        Faultline::spawn_saying(command, settings, Stdio::piped())
    }

    fn spawn_saying(command: &mut Command, settings: &[(&str, String)], stderr: Stdio) -> Faultline {
        let mut child = command
            .envs(settings.iter().map(|(key, value)| (format!("FAULTLINE__{key}"), value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let said = Arc::default();
        let stderr = tokio::spawn(read_all(child.stderr.take(), Arc::clone(&said)));
        Faultline { child, stdout: Some(stdout), stderr, said }
    }

    /// Runs it to its end, without settings, and takes what it writes.
    pub(crate) async fn output(arguments: &[&str]) -> std::process::Output {
        Faultline::output_with(arguments, &[]).await
    }

    /// The same with settings.
    pub(crate) async fn output_with(arguments: &[&str], settings: &[(&str, String)]) -> std::process::Output {
        let settings = settings.iter().map(|(key, value)| (format!("FAULTLINE__{key}"), value));
        Command::new(program()).args(arguments).envs(settings).stdin(Stdio::null()).output().await.unwrap()
    }

    /// Starts `up` with the data directory and ports of `local`.
    pub(crate) fn up(local: &LocalConfig, arguments: &[&str]) -> Faultline {
        let data_dir = local.data_dir.to_str().unwrap();
        Faultline::start(&[&["up", "--data-dir", data_dir], arguments].concat(), &settings(local))
    }

    /// Waits until `up` says that it is up.
    pub(crate) async fn until_up(mut self) -> Faultline {
        self.until_it_says("Faultline is up.").await;
        self
    }

    /// Waits for a line of its standard output that has this in it, and returns the line.
    pub(crate) async fn until_it_says(&mut self, what: &str) -> String {
        let said = timeout(PATIENCE, async {
            let mut line = String::new();
            let stdout = self.stdout.as_mut().unwrap();
            while stdout.read_line(&mut line).await.unwrap() > 0 {
                if line.contains(what) {
                    return Some(line);
                }
                line.clear();
            }
            None
        });
        match said.await {
            Ok(Some(line)) => line,
            Ok(None) => {
                (&mut self.stderr).await.unwrap();
                panic!("it ended before it said `{what}`: {:?}\n{}", self.child.wait().await, self.said())
            }
            Err(_) => panic!("it did not say `{what}` within {PATIENCE:?}"),
        }
    }

    /// What it has written to its standard error so far.
    pub(crate) fn said(&self) -> String {
        String::from_utf8_lossy(&self.said.lock().unwrap()).into_owned()
    }

    /// Closes our ends of its standard output and error.
    pub(crate) fn stop_reading(&mut self) {
        self.stdout = None;
        self.stderr.abort();
    }

    pub(crate) fn pid(&self) -> i32 {
        self.child.id().and_then(|pid| i32::try_from(pid).ok()).unwrap()
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).unwrap();
    }

    /// Waits until it has ended.
    pub(crate) async fn end(mut self) -> Ended {
        let status = timeout(PATIENCE, self.child.wait()).await.expect("it did not end").unwrap();
        // One that nobody reads any more was stopped.
        let _ = (&mut self.stderr).await;
        Ended { status, stderr: self.said() }
    }
}

/// Runs it to its end.
pub(crate) async fn run(arguments: &[&str], settings: &[(&str, String)]) -> Ended {
    Faultline::start(arguments, settings).end().await
}

impl Ended {
    /// Asserts that it failed, without a panic, and said all of `parts`.
    #[track_caller]
    pub(crate) fn failed_saying(&self, parts: &[&str]) {
        assert_eq!(self.status.code(), Some(1), "{}", self.stderr);
        for part in parts {
            assert!(self.stderr.contains(part), "`{part}` was not said:\n{}", self.stderr);
        }
    }
}

/// The ports of `local` as settings, and others for what listens beside them.
pub(crate) fn settings(local: &LocalConfig) -> Vec<(&'static str, String)> {
    vec![
        ("GATEWAY__LISTEN", format!("127.0.0.1:{}", port())),
        ("MONITORING__LISTEN", format!("127.0.0.1:{}", port())),
        ("CONSOLE__LISTEN", format!("127.0.0.1:{}", port())),
        ("LOCAL__KAFKA_PORT", local.kafka_port.to_string()),
        ("LOCAL__KAFKA_CONTROLLER_PORT", local.kafka_controller_port.to_string()),
        ("LOCAL__CLICKHOUSE_HTTP_PORT", local.clickhouse_http_port.to_string()),
        ("LOCAL__CLICKHOUSE_NATIVE_PORT", local.clickhouse_native_port.to_string()),
        ("LOCAL__KAFKA_PARTITIONS", local.kafka_partitions.to_string()),
        ("LOCAL__KAFKA_HEAP_MIB", local.kafka_heap_mib.to_string()),
        ("LOCAL__CLICKHOUSE_MEMORY_MIB", local.clickhouse_memory_mib.to_string()),
    ]
}

/// The processes that work in `directory` or below, as a test's parts and their tools do, with their command lines.
pub(crate) fn processes(directory: &Path) -> Vec<(i32, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        if fs::read_link(entry.path().join("cwd")).is_ok_and(|working| working.starts_with(directory)) {
            let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            found.push((pid, String::from_utf8_lossy(&command).replace('\0', " ")));
        }
    }
    found
}

/// The one process among [`processes`] that also has `which` in its command line.
pub(crate) fn process(directory: &Path, which: &str) -> Option<i32> {
    let found: Vec<i32> = processes(directory).into_iter().filter(|(_, command)| command.contains(which)).map(|(pid, _)| pid).collect();
    match found.as_slice() {
        [pid] => Some(*pid),
        _ => None,
    }
}

/// Asks again and again until there is an answer.
pub(crate) async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let answer = in_time(async || ask().await.ok_or(())).await;
    answer.unwrap_or_else(|()| panic!("{what}: not within {PATIENCE:?}"))
}

/// The same, or what was there instead of an answer at last.
pub(crate) async fn in_time<T, E>(mut ask: impl AsyncFnMut() -> Result<T, E>) -> Result<T, E> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = ask().await;
        if answer.is_ok() || Instant::now() >= deadline {
            return answer;
        }
        sleep(Duration::from_millis(20)).await;
    }
}

async fn read_all(stream: Option<ChildStderr>, said: Arc<Mutex<Vec<u8>>>) {
    let Some(mut stream) = stream else { return };
    let mut piece = Vec::with_capacity(4096);
    while stream.read_buf(&mut piece).await.unwrap() > 0 {
        said.lock().unwrap().append(&mut piece);
    }
}
