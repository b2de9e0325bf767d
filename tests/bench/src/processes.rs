//! Processes, and what they used: CPU time and memory, as the kernel counts it (`proc(5)`); and what services say of themselves.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, SysconfVar, sysconf};
use reqwest::Client;
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// How long a service may take to stop.
const PATIENCE: Duration = Duration::from_secs(60);

/// A service of the program, killed when nobody has it any more.
pub(crate) struct Service(Child);

impl Service {
    pub(crate) fn start(command: &mut Command) -> anyhow::Result<Service> {
        let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
        Ok(Service(command.spawn().with_context(|| format!("cannot run {}", command.as_std().get_program().display()))?))
    }

    pub(crate) fn pid(&self) -> anyhow::Result<i32> {
        self.0.id().and_then(|pid| i32::try_from(pid).ok()).context("a service has ended by itself")
    }

    /// Asks it to stop, and waits until it has.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        kill(Pid::from_raw(self.pid()?), Signal::SIGTERM)?;
        let ended = timeout(PATIENCE, self.0.wait()).await.context("a service does not stop")??;
        if ended.success() { Ok(()) } else { bail!("a service ended with an error") }
    }
}

/// CPU time that a process used so far, its threads that have ended included.
pub(crate) fn cpu_time(pid: i32) -> anyhow::Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).with_context(|| format!("process {pid} is gone"))?;
    // The name, in parentheses, may have anything in it; utime and stime are the twelfth and the thirteenth field behind it.
    let (_, rest) = stat.rsplit_once(')').context("a process has no name")?;
    let ticks: Vec<u64> = rest.split_whitespace().skip(11).take(2).map(str::parse).collect::<Result<_, _>>()?;
    let a_second = sysconf(SysconfVar::CLK_TCK)?.and_then(|ticks| u32::try_from(ticks).ok()).context("nobody knows how long a tick is")?;
    Ok(Duration::from_secs(ticks.iter().sum()) / a_second)
}

/// Memory of a process that is in RAM, in MiB.
pub(crate) fn resident_mib(pid: i32) -> anyhow::Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).with_context(|| format!("process {pid} is gone"))?;
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("nobody knows how much memory a process has")?;
    Ok(kib.trim().trim_end_matches(" kB").parse::<f64>()? / 1024.0)
}

/// The processes that work in a directory or below.
pub(crate) fn processes_in(directory: &Path) -> anyhow::Result<Vec<i32>> {
    let entries = fs::read_dir("/proc")?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    Ok(entries.filter(|pid| fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|working| working.starts_with(directory))).collect())
}

/// The greatest of a gauge's values that a service says on its monitoring port, if it does.
pub(crate) async fn gauge(port: u16, name: &str) -> Option<f64> {
    let [value] = metrics(port, [name]).await?;
    value
}

/// The same of several metrics, of one moment; nothing at all where the service does not answer.
pub(crate) async fn metrics<const N: usize>(port: u16, names: [&str; N]) -> Option<[Option<f64>; N]> {
    let client = Client::builder().no_proxy().build().ok()?;
    let said = client.get(format!("http://127.0.0.1:{port}/metrics")).send().await.ok()?.text().await.ok()?;
    let values = |name: &str| {
        let values = said.lines().filter_map(|line| {
            let (labels, value) = line.strip_prefix(name)?.rsplit_once(' ')?;
            (labels.is_empty() || labels.starts_with('{')).then(|| value.parse::<f64>().ok())?
        });
        values.max_by(f64::total_cmp)
    };
    Some(names.map(values))
}
