//! `faultline up`, as a user runs it.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use faultline_deploy::LocalConfig;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::program::{Faultline, eventually, process, processes, run, settings};
use crate::sandbox::{ports, sandbox, scratch};

/// A data directory and ports for one test.
fn place() -> (TempDir, LocalConfig) {
    let directory = scratch("up");
    let local = LocalConfig { data_dir: directory.path().into(), ..ports() };
    (directory, local)
}

/// The directory and ports of `local` as settings, and more of them.
fn with(local: &LocalConfig, more: &[(&'static str, String)]) -> Vec<(&'static str, String)> {
    let directory = ("LOCAL__DATA_DIR", local.data_dir.to_str().unwrap().to_owned());
    [&settings(local), more, &[directory]].concat()
}

fn kafka(local: &LocalConfig) -> Option<i32> {
    process(&local.data_dir, "kafka.Kafka")
}

fn clickhouse(local: &LocalConfig) -> Option<i32> {
    process(&local.data_dir, "clickhouse-server")
}

async fn no_process_is_left(local: &LocalConfig) {
    eventually("every child has ended", async || processes(&local.data_dir).is_empty().then_some(())).await;
}

#[tokio::test]
async fn it_stops_cleanly_and_what_it_keeps_is_there_the_next_time() {
    let (_directory, local) = place();
    for (signal, topics_created) in [(Signal::SIGTERM, true), (Signal::SIGINT, false)] {
        let up = Faultline::up(&local, &[]).until_up().await;
        assert!(kafka(&local).is_some() && clickhouse(&local).is_some());
        up.signal(signal);
        let ended = up.end().await;
        assert!(ended.status.success(), "{ended:?}");
        assert_eq!(ended.stderr.contains("created=\"faultline.outcomes"), topics_created, "{}", ended.stderr);
        assert_eq!(processes(&local.data_dir), []);
        let password = fs::read_to_string(local.data_dir.join("clickhouse/password")).unwrap();
        assert!(!ended.stderr.contains(&password));
    }
}

#[tokio::test]
async fn killed_it_leaves_no_orphan_and_can_be_started_again() {
    let (_directory, local) = place();
    let up = Faultline::up(&local, &[]).until_up().await;
    up.signal(Signal::SIGKILL);
    up.end().await;
    no_process_is_left(&local).await;
    let up = Faultline::up(&local, &[]).until_up().await;
    up.signal(Signal::SIGTERM);
    assert!(up.end().await.status.success());
}

/// What a directory may be called is nobody's business but its owner's.
#[tokio::test]
async fn an_odd_name_of_the_data_directory_does_no_harm() {
    let (directory, local) = place();
    let odd = directory.path().join("中文 a&b<c>,d\\e=f#g:h'i\"");
    let local = LocalConfig { data_dir: odd.clone(), ..local };
    for _ in 0..2 {
        let up = Faultline::up(&local, &[]).until_up().await;
        up.signal(Signal::SIGTERM);
        assert!(up.end().await.status.success());
    }
    assert!(odd.join("kafka/log/meta.properties").exists() && odd.join("clickhouse/data").exists());
    let beside: Vec<_> = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(beside, [odd]);
}

#[tokio::test]
async fn stopped_or_killed_at_any_moment_of_its_start_it_leaves_nothing_in_the_way() {
    let (_directory, local) = place();
    for (after, signal) in
        [(50, Signal::SIGKILL), (300, Signal::SIGKILL), (700, Signal::SIGTERM), (1000, Signal::SIGKILL), (1300, Signal::SIGINT)]
    {
        let up = Faultline::up(&local, &[]);
        tokio::time::sleep(Duration::from_millis(after)).await;
        up.signal(signal);
        let ended = up.end().await;
        assert!(signal == Signal::SIGKILL || ended.status.success(), "{ended:?}");
        no_process_is_left(&local).await;
    }
    let up = Faultline::up(&local, &[]).until_up().await;
    up.signal(Signal::SIGTERM);
    assert!(up.end().await.status.success());
}

#[tokio::test]
async fn it_goes_on_and_stops_cleanly_when_nobody_reads_what_it_says() {
    let (_directory, local) = place();
    let mut up = Faultline::up(&local, &[]).until_up().await;
    up.stop_reading();
    let first = kafka(&local).unwrap();
    kill(Pid::from_raw(first), Signal::SIGKILL).unwrap();
    eventually("Kafka runs again", async || kafka(&local).filter(|pid| *pid != first)).await;
    up.signal(Signal::SIGTERM);
    let ended = up.end().await;
    assert!(ended.status.success(), "{ended:?}");
    no_process_is_left(&local).await;
}

#[tokio::test]
async fn a_second_one_is_told_that_the_directory_or_the_port_is_taken() {
    let (_directory, local) = place();
    let up = Faultline::up(&local, &[]).until_up().await;
    let same_directory = LocalConfig { data_dir: local.data_dir.clone(), ..ports() };
    let in_use = format!("is in use by another faultline (process {})", up.pid());
    for same in [&same_directory, &local] {
        Faultline::up(same, &[]).end().await.failed_saying(&[local.data_dir.to_str().unwrap(), &in_use]);
    }

    let elsewhere = scratch("up");
    for (same_port, key, port) in [
        (LocalConfig { kafka_port: local.kafka_port, ..ports() }, "kafka_port", local.kafka_port),
        (LocalConfig { clickhouse_http_port: local.clickhouse_http_port, ..ports() }, "clickhouse_http_port", local.clickhouse_http_port),
    ] {
        let same_port = LocalConfig { data_dir: elsewhere.path().into(), ..same_port };
        let ended = Faultline::up(&same_port, &[]).end().await;
        ended.failed_saying(&[&format!("port {port} for "), "is taken", &format!("`local.{key}`")]);
    }
    up.signal(Signal::SIGTERM);
    assert!(up.end().await.status.success());
}

#[tokio::test]
async fn a_child_that_dies_is_started_again() {
    let (_directory, local) = place();
    let up = Faultline::up(&local, &[]).until_up().await;
    for find in [kafka, clickhouse] {
        let first = find(&local).unwrap();
        kill(Pid::from_raw(first), Signal::SIGKILL).unwrap();
        let second = eventually("it runs again", async || find(&local).filter(|pid| *pid != first)).await;
        assert_ne!(first, second);
    }
    let port = local.kafka_port;
    eventually("Kafka listens again", async || TcpListener::bind(("127.0.0.1", port)).err()).await;
    up.signal(Signal::SIGTERM);
    let ended = up.end().await;
    assert!(ended.status.success(), "{ended:?}");
    assert!(ended.stderr.contains("Kafka died, starting it again") && ended.stderr.contains("ClickHouse died"), "{}", ended.stderr);
    no_process_is_left(&local).await;
}

#[tokio::test]
async fn a_child_that_keeps_dying_ends_it_with_the_childs_last_words() {
    let (_directory, local) = place();
    let up = Faultline::up(&local, &[]).until_up().await;
    // The next starts find a configuration that is none.
    let configuration = local.data_dir.join("clickhouse/config.xml");
    fs::write(&configuration, "<clickhouse>").unwrap();
    kill(Pid::from_raw(clickhouse(&local).unwrap()), Signal::SIGKILL).unwrap();
    let ended = up.end().await;
    ended.failed_saying(&["ClickHouse died 6 times within 10 minutes", "its last words", "clickhouse.out", "config.xml"]);
    no_process_is_left(&local).await;
}

#[tokio::test]
async fn a_directory_that_cannot_be_written_is_named() {
    // Refused to root as well.
    let nowhere = LocalConfig { data_dir: PathBuf::from("/sys/faultline"), ..ports() };
    Faultline::up(&nowhere, &[]).end().await.failed_saying(&["/sys/faultline", "local.data_dir", "not permitted"]);
}

#[tokio::test]
async fn a_wrong_key_or_value_is_named() {
    let wrong_key = run(&["up"], &[("LOCAL__KAFKA_PRT", "1".into())]).await;
    wrong_key.failed_saying(&["local.kafka_prt", "unknown field", "kafka_port"]);
    let wrong_value = run(&["up"], &[("UP__READY_WITHIN", "soon".into())]).await;
    wrong_value.failed_saying(&["up.ready_within", "soon"]);
    let with_password = run(&["up", "--clickhouse", "http://app:hunter2@127.0.0.1:99999"], &[]).await;
    with_password.failed_saying(&["--clickhouse", "has a user, a password or a query", "clickhouse.password"]);
    assert!(!with_password.stderr.contains("hunter2"), "{}", with_password.stderr);
    let directory = scratch("config");
    let file = directory.path().join("faultline.toml");
    fs::write(&file, "[kafka]\nbroker = 'here:9092'\n").unwrap();
    run(&["--config", file.to_str().unwrap(), "up"], &[]).await.failed_saying(&["kafka.broker", "`brokers`"]);
}

#[tokio::test]
async fn servers_that_do_not_answer_end_it_after_the_time_allowed() {
    let (_directory, unused) = place();
    let settings = with(&unused, &[("UP__READY_WITHIN", "2s".into())]);
    let clickhouse = format!("http://127.0.0.1:{}", unused.clickhouse_http_port);
    let brokers = format!("127.0.0.1:{}", unused.kafka_port);
    let ended = run(&["up", "--kafka", &brokers, "--clickhouse", &clickhouse], &settings).await;
    ended.failed_saying(&["was not ready within 2 s", "Connection refused"]);

    // Kafka answers, ClickHouse does not.
    let ended = run(&["up", "--kafka", &sandbox().await.kafka.brokers, "--clickhouse", &clickhouse], &settings).await;
    ended.failed_saying(&["ClickHouse was not ready within 2 s", &clickhouse, "Connection refused"]);
}

/// A server that says what time it is, which another one tells it, and then does nothing.
async fn says_only_the_time(mut connection: TcpStream, other: String) {
    let mut server = TcpStream::connect(other).await.unwrap();
    let (mut request, mut answer) = ([0; 4096], Vec::new());
    loop {
        tokio::select! {
            read = connection.read(&mut request) => {
                let request = &request[..read.unwrap_or_default()];
                if request.is_empty() {
                    break;
                }
                if request.windows(5).any(|words| words == b"now64") {
                    server.write_all(request).await.unwrap();
                }
            }
            // Who asked may have given up, of a machine that is busy, and asks again.
            read = server.read_buf(&mut answer) => {
                if read.unwrap_or_default() == 0 || connection.write_all(&std::mem::take(&mut answer)).await.is_err() {
                    break;
                }
            }
        }
    }
}

#[tokio::test]
async fn a_server_that_hangs_after_its_first_answer_ends_it_after_the_time_allowed() {
    use secrecy::ExposeSecret;
    let shared = sandbox().await;
    let real = shared.clickhouse.url.to_string();
    let real = real.trim_start_matches("http://").trim_end_matches('/').to_owned();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let clickhouse = format!("http://{}", listener.local_addr().unwrap());
    let server = tokio::spawn(async move {
        let mut connections = tokio::task::JoinSet::new();
        while let Ok((connection, _)) = listener.accept().await {
            connections.spawn(says_only_the_time(connection, real.clone()));
        }
    });
    let (_directory, local) = place();
    let settings = with(
        &local,
        &[
            ("UP__READY_WITHIN", "10s".into()),
            ("KAFKA__TOPIC_PREFIX", "hangs".into()),
            ("CLICKHOUSE__USER", shared.clickhouse.user.clone()),
            ("CLICKHOUSE__PASSWORD", shared.clickhouse.password.expose_secret().to_owned()),
        ],
    );
    let arguments = ["up", "--kafka", &shared.kafka.brokers, "--clickhouse", &clickhouse, "--allow-weak-durability"];
    run(&arguments, &settings).await.failed_saying(&["topics and schema were not there within 10 s"]);
    server.abort();
}

#[tokio::test]
async fn on_servers_of_others_durability_is_checked() {
    use secrecy::ExposeSecret;
    let shared = sandbox().await;
    let (_directory, local) = place();
    let more = [
        ("KAFKA__TOPIC_PREFIX", "of-others".into()),
        ("CLICKHOUSE__USER", shared.clickhouse.user.clone()),
        ("CLICKHOUSE__PASSWORD", shared.clickhouse.password.expose_secret().to_owned()),
        ("CLICKHOUSE__DATABASE", "of_others".into()),
    ];
    let settings = with(&local, &more);
    let arguments = ["up", "--kafka", &shared.kafka.brokers, "--clickhouse", &shared.clickhouse.url.to_string()];
    run(&arguments, &settings).await.failed_saying(&["1 broker(s)", "--allow-weak-durability"]);

    let accepted = [&arguments[..], &["--allow-weak-durability"]].concat();
    let up = Faultline::start(&accepted, &settings).until_up().await;
    up.signal(Signal::SIGTERM);
    assert!(up.end().await.status.success());
}

#[tokio::test]
async fn parts_that_are_missing_and_cannot_be_fetched_are_named() {
    let (directory, local) = place();
    let empty = scratch("parts");
    let mut settings = settings(&local);
    settings.push(("LOCAL__PARTS_DIR", empty.path().to_str().unwrap().into()));
    // A search path with a Java that says it is recent, and without a package manager.
    let java = empty.path().join("java");
    fs::write(&java, "#!/bin/sh\necho 'openjdk version \"17.0.1\"' >&2\n").unwrap();
    fs::set_permissions(&java, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    for program in ["setpriv", "sh"] {
        std::os::unix::fs::symlink(Path::new("/usr/bin").join(program), empty.path().join(program)).unwrap();
    }
    let ended = Faultline::start_with_path(empty.path(), &["up", "--data-dir", directory.path().to_str().unwrap()], &settings).end().await;
    ended.failed_saying(&["`mvn` is needed to fetch Kafka", "make setup"]);
    tokio::time::timeout(Duration::from_secs(1), no_process_is_left(&local)).await.unwrap();
}
