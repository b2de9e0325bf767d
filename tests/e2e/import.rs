//! Logs of a switch on the whole road: each line counted once, whatever is killed, repeated, renamed or written on.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use encoding_rs::GB18030;
use faultline_proto::ingest::v1::OutcomeBatch;
use faultline_proto::outcome::v1::Stage;
use faultline_store::ClickHouseConfig;
use flate2::Compression;
use flate2::write::GzEncoder;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use nix::sys::signal::Signal;
use prost::Message;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::classifier::{counted, road};
use crate::program::{Faultline, eventually};
use crate::sandbox::{port, scratch};
use crate::services::{Gateway, Service, new_token, query};

/// How long many lines may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(300);
const CODES: [&str; 8] = ["00", "00", "00", "51", "91", "05", "", "ZZ"];
const HEADER: &str =
    "交易日期|交易时间|MTI|处理码|终端号|商户号|卡号|金额|币种|输入方式|参考号|流水号|应答码|收单机构|主机|耗时毫秒|省份|运营商\n";

/// Lines of a log with these numbers, of so many terminals: an hour ago, a line each ten milliseconds.
fn lines(numbers: std::ops::Range<usize>, terminals: usize) -> String {
    let begin = Timestamp::now() - SignedDuration::from_hours(1);
    let zone = TimeZone::get("Asia/Shanghai").unwrap();
    let line = |number: usize| {
        let time = begin + SignedDuration::from_millis(10 * i64::try_from(number).unwrap());
        format!(
            "{}|0200|000000|{:08}|898440351980012|{}|{:012}|156|051|{number:012}|{:06}|{}|48020000|pos-{}|312|440000|cmcc\n",
            time.to_zoned(zone.clone()).strftime("%Y%m%d|%H%M%S"),
            number % terminals,
            card(number),
            number + 1,
            number % 1_000_000,
            CODES[number % CODES.len()],
            number % 3,
        )
    };
    numbers.map(line).collect()
}

/// Sixteen digits that are no card number: the check digit is wrong.
fn card(number: usize) -> String {
    let digits = format!("{}{number:09}", ["622848", "622202", "621700"][number % 3]);
    let sum = |(place, digit): (usize, char)| {
        let twice = digit.to_digit(10).unwrap() * if place % 2 == 0 { 2 } else { 1 };
        twice / 10 + twice % 10
    };
    let check = digits.chars().rev().enumerate().map(sum).sum::<u32>() % 10;
    format!("{digits}{}", (10 - check + 1) % 10)
}

/// So many outcomes of each response code.
fn by_code(numbers: std::ops::Range<usize>) -> String {
    let mut codes: BTreeMap<&str, usize> = BTreeMap::new();
    numbers.for_each(|number| *codes.entry(CODES[number % CODES.len()]).or_default() += 1);
    codes.iter().map(|(code, outcomes)| format!("{code}\t{outcomes}")).collect::<Vec<_>>().join("\n")
}

/// A place for logs, with a gateway to import them to.
struct Place {
    directory: TempDir,
    gateway: String,
}

impl Place {
    async fn new(gateway: &Gateway) -> Place {
        let directory = scratch("import");
        let token = new_token(&gateway.tokens(), &["--tenant", "acme", "--any-terminal"]).await;
        fs::write(directory.path().join("token"), token).unwrap();
        eventually("the token is known", async || (gateway.service.counted("faultline_gateway_tokens", &[]).await == 2).then_some(()))
            .await;
        Place { directory, gateway: format!("http://{}", gateway.address()) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Adds to a log, which switches write in GBK.
    fn write(&self, name: &str, text: &str) {
        let mut file = fs::File::options().create(true).append(true).open(self.path(name)).unwrap();
        file.write_all(&GB18030.encode(text).0).unwrap();
    }

    /// The arguments of an import by the mapping that comes with it.
    fn arguments(&self, more: &[&str]) -> Vec<String> {
        let mapping = Path::new(env!("CARGO_MANIFEST_DIR")).join("../services/importer/mappings/unionpay-switch.toml");
        let token = self.path("token");
        let usual = [("--gateway", self.gateway.as_str()), ("--token-file", token.to_str().unwrap())];
        let usual = usual.into_iter().filter(|(option, _)| !more.contains(option)).flat_map(|(option, value)| [option, value]);
        ["import", mapping.to_str().unwrap()].into_iter().chain(usual).chain(more.iter().copied()).map(str::to_owned).collect()
    }

    fn start(&self, more: &[&str]) -> Faultline {
        let arguments = self.arguments(more);
        Faultline::start(&arguments.iter().map(String::as_str).collect::<Vec<_>>(), &[])
    }

    /// Imports, and returns what it ended with and what it said.
    async fn import(&self, more: &[&str]) -> (Option<i32>, String) {
        let arguments = self.arguments(more);
        let Output { status, stdout, stderr } = Faultline::output(&arguments.iter().map(String::as_str).collect::<Vec<_>>()).await;
        (status.code(), format!("{}{}", String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap()))
    }

    /// How many lines a state says to be imported.
    fn imported(&self, state: &str) -> Option<u64> {
        let state: serde_json::Value = serde_json::from_str(&fs::read_to_string(self.path(state)).ok()?).unwrap();
        state["logs"].as_object().unwrap().values().map(|log| log["imported"]["lines"].as_u64().unwrap()).max()
    }
}

async fn stored(clickhouse: &ClickHouseConfig) -> String {
    query(clickhouse, "SELECT response_code, count() FROM outcomes GROUP BY response_code ORDER BY response_code").await
}

async fn until_repeated(classifier: &Service, events: u64) {
    let repeated = async || classifier.counted("faultline_classifier_events_total", &["repeated"]).await;
    eventually(&format!("{events} repeats"), async || (repeated().await == events).then_some(())).await;
}

#[tokio::test]
async fn a_log_is_counted_once_however_often_it_comes_and_leaves_no_card_number() {
    let (gateway, classifier, clickhouse) = road("import-once").await;
    let place = Place::new(&gateway).await;
    let old = "20200101|101112|0200|000000|00000001|898440351980012||1|156|051|1|1|00|48020000|pos-1|1|440000|cmcc\n";
    let echo = old.replace("20200101", "20260101").replace("|0200|", "|0800|");
    let twice = lines(0..1, 1).replace("pos-0", &card(0));
    place.write("switch.log", &format!("{HEADER}{}{old}{echo}{}6|broken\n{twice}\n", lines(0..1500, 20), lines(1500..3000, 20)));
    let (log, rejects) = (place.path("switch.log"), place.path("rejects"));
    let (log, rejects) = (log.to_str().unwrap(), rejects.to_str().unwrap());

    // What would become of it is known before anything is sent, and needs no gateway.
    let (code, checked) = place.import(&[log, "--check", "--gateway", "http://127.0.0.1:1"]).await;
    assert_eq!(code, Some(3), "{checked}");
    for said in [
        "3005 lines: 3000 outcomes of 20 terminals",
        "2 skipped, 3 not importable",
        "switch.log, line 2:\n  batch.terminal_id = 00000000\n",
        "outcome.bin = \"62284800\"",
        "outcome.amount_minor = 1\n",
    ] {
        assert!(checked.contains(said), "{said}:\n{checked}");
    }

    let (code, said) = place.import(&[log, "--rejects", rejects]).await;
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("3005 lines read: 3000 outcomes acknowledged, 2 lines skipped, 3 not importable."), "{said}");
    counted(&clickhouse, 3000).await;
    assert_eq!(stored(&clickhouse).await, by_code(0..3000));
    let rows = "SELECT count(), uniqExact(terminal, spool, sequence), uniqExact(spool), uniqExact(terminal), sum(amount_minor), min(sequence), \
                max(sequence), any(carrier), any(region), any(currency), any(clock), uniqExact(issuer) FROM outcomes";
    let rows = query(&clickhouse, rows).await;
    assert_eq!(rows, format!("3000\t3000\t1\t20\t{}\t2\t3003\t46000\t440000\tCNY\tcorrected\t3", 3000 * 3001 / 2));
    // The log's own clock is believed.
    let first = lines(0..1, 1);
    let since = "SELECT formatDateTime(toTimeZone(min(completed_at), 'Asia/Shanghai'), '%Y%m%d') FROM outcomes";
    assert_eq!(query(&clickhouse, since).await, first.split('|').next().unwrap());

    let reasons: Vec<serde_json::Value> =
        fs::read_to_string(rejects).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let reasons: Vec<_> = reasons.iter().map(|refusal| (refusal["line"].as_u64().unwrap(), refusal["reason"].as_str().unwrap())).collect();
    assert_eq!(reasons, [(1502, "too_old"), (3004, "malformed"), (3005, "card_number")]);

    // Again, from the state; without it; under another name, compressed; from a pipe.
    let (code, again) = place.import(&[log]).await;
    assert_eq!(code, Some(0), "{again}");
    assert!(again.contains("0 lines read after line 3006"), "{again}");
    fs::remove_file(place.path("switch.log.faultline-import")).unwrap();
    let (_, again) = place.import(&[log]).await;
    assert!(again.contains("3000 outcomes acknowledged"), "{again}");
    until_repeated(&classifier, 3000).await;
    let mut compressed = GzEncoder::new(Vec::new(), Compression::fast());
    compressed.write_all(&fs::read(log).unwrap()).unwrap();
    fs::write(place.path("old.gz"), compressed.finish().unwrap()).unwrap();
    place.import(&[place.path("old.gz").to_str().unwrap()]).await;
    until_repeated(&classifier, 6000).await;
    counted(&clickhouse, 3000).await;

    // Nothing of a card number but what names the issuer is anywhere.
    let mut everything = query(&clickhouse, "SELECT * FROM outcomes FORMAT JSONEachRow").await.into_bytes();
    gateway.records().await.iter().for_each(|record| everything.extend_from_slice(&[&record.batch[..], &record.profile].concat()));
    for file in ["switch.log.faultline-import", "rejects", "old.gz.faultline-import"] {
        everything.extend(fs::read(place.path(file)).unwrap());
    }
    everything.extend_from_slice(format!("{checked}{said}{again}").as_bytes());
    let leaks = |digits: &str| everything.windows(digits.len()).any(|window| window == digits.as_bytes());
    assert!(leaks(&card(0)[..8]), "the search finds what is there");
    for number in [0, 1, 2, 1499, 2999] {
        // From the ninth digit on, and the last four: also what would be left of one.
        assert!(!leaks(&card(number)) && !leaks(&card(number)[..9]), "{}", card(number));
    }
    everything.clear();
    everything.extend_from_slice(classifier.stop().await.stderr.as_bytes());
    everything.extend_from_slice(gateway.stop().await.stderr.as_bytes());
    let leaks = |digits: &str| everything.windows(digits.len()).any(|window| window == digits.as_bytes());
    assert!(!leaks(&card(0)[..9]));
}

/// Two at once, one of them killed half-way, and the gateway as well.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_killed_every_line_is_counted_once() {
    const LINES: usize = 40_000;
    let (mut gateway, classifier, clickhouse) = road("import-killed").await;
    let place = Place::new(&gateway).await;
    place.write("switch.log", &format!("{HEADER}{}", lines(0..LINES, 2000)));
    let (log, first, second) = (place.path("switch.log"), place.path("first"), place.path("second"));
    let import = |state: &Path, calls| place.start(&[log.to_str().unwrap(), "--state", state.to_str().unwrap(), "--concurrency", calls]);
    let killed = import(&first, "1");
    let other = import(&second, "2");
    eventually("some of it is imported", async || place.imported("first").filter(|lines| *lines > 1)).await;
    killed.signal(Signal::SIGKILL);
    killed.end().await;
    let half = place.imported("first").unwrap();
    assert!(half < LINES as u64, "all {half} lines were imported before it was killed");

    let settings = gateway.service.settings.clone();
    gateway.service.kill().await;
    let resumed = import(&first, "8");
    gateway.service = Service::start("gateway", settings);
    let begin = Instant::now();
    while ["first", "second"].iter().any(|state| place.imported(state) != Some(LINES as u64 + 1)) {
        assert!(begin.elapsed() < PATIENCE, "{:?} and {:?} are imported", place.imported("first"), place.imported("second"));
        sleep(Duration::from_millis(200)).await;
    }
    for ended in [resumed.end().await, other.end().await] {
        assert!(ended.status.success(), "{ended:?}");
    }
    counted(&clickhouse, LINES).await;
    assert_eq!(stored(&clickhouse).await, by_code(0..LINES));
    let rows =
        query(&clickhouse, "SELECT count(), uniqExact(terminal, spool, sequence), uniqExact(spool), sum(amount_minor) FROM outcomes").await;
    assert_eq!(rows, format!("{LINES}\t{LINES}\t1\t{}", LINES * (LINES + 1) / 2));
    assert!(classifier.counted("faultline_classifier_events_total", &["repeated"]).await > 0);
    classifier.stop().await;
    gateway.stop().await;
}

#[tokio::test]
async fn a_log_that_grows_is_imported_as_it_grows_also_when_it_is_rotated() {
    let (gateway, classifier, clickhouse) = road("import-grows").await;
    let place = Place::new(&gateway).await;
    let (log, rotated, state) = (place.path("switch.log"), place.path("switch.log.1"), place.path("state"));
    let (log, rotated, state) = (log.to_str().unwrap(), rotated.to_str().unwrap(), state.to_str().unwrap());
    place.write("switch.log", &format!("{HEADER}{}", lines(0..3, 2)));
    let (code, said) = place.import(&[log, "--state", state]).await;
    assert_eq!(code, Some(1));
    assert!(said.contains("4096 are needed to tell a log from others"), "{said}");

    let next = lines(100..101, 2);
    place.write("switch.log", &format!("{}{}", lines(3..100, 2), &next[..20]));
    let (code, said) = place.import(&[log, "--state", state]).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("100 lines read: 100 outcomes") && said.contains("The last line has no end"), "{said}");
    place.write("switch.log", &next[20..]);
    place.write("switch.log", &lines(101..150, 2));
    let (code, said) = place.import(&[log, "--state", state]).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("50 lines read after line 101"), "{said}");

    fs::rename(log, rotated).unwrap();
    place.write("switch.log.1", &lines(150..151, 2));
    place.write("switch.log", &format!("{HEADER}{}", lines(151..300, 2)));
    let (code, said) = place.import(&[rotated, log, "--state", state]).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("1 lines read after line 151") && said.contains("149 lines read:"), "{said}");
    counted(&clickhouse, 300).await;
    assert_eq!(stored(&clickhouse).await, by_code(0..300));
    assert_eq!(query(&clickhouse, "SELECT uniqExact(spool) FROM outcomes").await, "2");

    // Followed, it is imported as it grows.
    let following = place.start(&[rotated, log, "--state", state, "--follow"]);
    for (numbers, imported) in [(300..350, 200), (350..400, 250)] {
        place.write("switch.log", &lines(numbers, 2));
        eventually("it is followed", async || (place.imported("state") == Some(imported)).then_some(())).await;
    }
    following.signal(Signal::SIGINT);
    let ended = following.end().await;
    assert!(ended.status.success(), "{ended:?}");
    counted(&clickhouse, 400).await;

    // What was there is cut off: it is not known where to go on.
    fs::write(log, &fs::read(log).unwrap()[..5000]).unwrap();
    let (code, said) = place.import(&[log, "--state", state]).await;
    assert_eq!(code, Some(1));
    assert!(said.contains("has 5000 bytes") && said.contains("what was there has been cut off"), "{said}");
    assert_eq!(classifier.counted("faultline_classifier_events_total", &["repeated"]).await, 0);
    classifier.stop().await;
    gateway.stop().await;
}

#[tokio::test]
async fn what_is_in_the_way_is_said_and_an_import_can_be_stopped() {
    let gateway = Gateway::start("import-in-the-way").await;
    let mut place = Place::new(&gateway).await;
    place.write("switch.log", &format!("{HEADER}{}bad\n{}", lines(0..100, 2), lines(100..200, 2)));
    let log = place.path("switch.log");
    let log = log.to_str().unwrap();
    let in_the_way = async |place: &Place, more: &[&str], parts: &[&str]| {
        let (code, said) = place.import(&[&[log], more].concat()).await;
        assert_eq!(code, Some(1), "{said}");
        for part in parts {
            assert!(said.contains(part), "{part}:\n{said}");
        }
        assert!(!said.contains(&gateway.token), "{said}");
    };
    // Strict: what is before the line is imported, and the next import begins with it.
    in_the_way(&place, &["--strict"], &["line 102 cannot be imported (--strict): malformed", "The next import goes on after line 101"])
        .await;
    let (code, said) = place.import(&[log]).await;
    assert!(code == Some(3) && said.contains("101 lines read after line 101"), "{said}");

    let one = place.path("one");
    fs::write(&one, &gateway.token).unwrap();
    let again = ["--state", "/dev/null/state"];
    in_the_way(&place, &again, &["cannot read /dev/null/state (--state)"]).await;
    fs::remove_file(place.path("switch.log.faultline-import")).unwrap();
    in_the_way(&place, &["--token-file", one.to_str().unwrap()], &["the token is of one terminal"]).await;
    fs::write(&one, "not-a-token").unwrap();
    in_the_way(&place, &["--token-file", one.to_str().unwrap()], &["the gateway does not take the token"]).await;
    in_the_way(&place, &["--ca-certificate", "/nowhere.pem"], &["/nowhere.pem (--ca-certificate)"]).await;
    in_the_way(&place, &["--rejects", "/nowhere/rejects"], &["/nowhere/rejects (--rejects)"]).await;
    in_the_way(&place, &["/nowhere/log", "--source", "a"], &["--source names one log, and 2 were given"]).await;

    let reached = std::mem::replace(&mut place.gateway, format!("http://127.0.0.1:{}", port()));
    in_the_way(&place, &["--give-up-after", "1s"], &["the gateway was not reached for 1 s (--give-up-after)", "tcp connect error"]).await;
    let mut waiting = place.start(&[log]);
    waiting.until_it_says("Importing ").await;
    waiting.signal(Signal::SIGINT);
    let ended = waiting.end().await;
    assert_eq!(ended.status.code(), Some(1));
    place.gateway = reached;
    let (code, said) = place.import(&[log]).await;
    assert!(code == Some(3) && said.contains("201 lines read: 200 outcomes acknowledged"), "{said}");
    gateway.stop().await;
}

/// What comes through a pipe goes on as it comes: whoever writes it may never end.
#[tokio::test]
async fn what_comes_through_a_pipe_does_not_wait_for_more() {
    let gateway = Gateway::start("import-pipe").await;
    let place = Place::new(&gateway).await;
    nix::unistd::mkfifo(&place.path("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let (pipe, state) = (place.path("pipe"), place.path("state"));
    let import = place.start(&[pipe.to_str().unwrap(), "--state", state.to_str().unwrap()]);
    let mut writer = tokio::task::spawn_blocking(move || fs::File::options().write(true).open(pipe).unwrap()).await.unwrap();
    writer.write_all(&GB18030.encode(&format!("{HEADER}{}", lines(0..200, 5))).0).unwrap();
    eventually("all of it is imported", async || (place.imported("state") == Some(201)).then_some(())).await;
    writer.write_all(lines(200..201, 5).as_bytes()).unwrap();
    eventually("one more is imported", async || (place.imported("state") == Some(202)).then_some(())).await;
    drop(writer);
    let ended = import.end().await;
    assert!(ended.status.success(), "{ended:?}");
    let events =
        gateway.records().await.iter().map(|record| OutcomeBatch::decode(record.batch.clone()).unwrap().events.len()).sum::<usize>();
    assert_eq!(events, 201);
    gateway.stop().await;
}

/// Every field that can be mapped, as large as an import takes it: whatever passes there passes the gateway.
#[tokio::test]
async fn what_an_import_takes_the_gateway_takes() {
    let gateway = Gateway::start("import-limits").await;
    let place = Place::new(&gateway).await;
    let fields: [(&str, usize, &str); 35] = [
        ("batch.terminal_id", 32, "A"),
        ("outcome.merchant_id", 15, "A"),
        ("outcome.store_id", 32, "+"),
        ("outcome.currency_code", 3, "C"),
        ("outcome.bin", 8, "6"),
        ("outcome.acquirer_id", 32, "/"),
        ("outcome.host_id", 64, ":"),
        ("outcome.route_id", 64, "."),
        ("outcome.trace_number", 6, "1"),
        ("outcome.batch_number", 6, "1"),
        ("outcome.retrieval_reference_number", 12, "A"),
        ("outcome.attempt", 3, "9"),
        ("outcome.response_code", 16, "A"),
        ("outcome.response_spec", 32, "-"),
        ("outcome.terminal_error_code", 32, "_"),
        ("outcome.diagnostic", 300, "x"),
        ("outcome.signal_dbm", 1, "0"),
        ("outcome.order_number", 64, "A"),
        ("outcome.amount_minor", 12, "9"),
        ("outcome.original.trace_number", 6, "1"),
        ("outcome.original.batch_number", 6, "1"),
        ("outcome.original.retrieval_reference_number", 12, "A"),
        ("outcome.original.terminal_id", 32, "A"),
        ("outcome.original.order_number", 64, "A"),
        ("outcome.emv.terminal_verification_results", 10, "F"),
        ("outcome.latencies.wait_ms", 6, "9"),
        ("outcome.latencies.total_ms", 7, "1"),
        ("profile.model", 64, "A"),
        ("profile.firmware", 64, "A"),
        ("profile.application", 64, "A"),
        ("profile.sdk", 64, "A"),
        ("profile.region", 16, "A"),
        ("profile.carrier", 32, "A"),
        ("profile.apn", 100, "A"),
        ("profile.merchant_group", 64, " A"),
    ];
    let mut mapping = "log.format = 'ndjson'\noutcome.type = 'sale'\noutcome.stage = 'print'\noutcome.entry_mode = 'keyed'\n\
                       outcome.network = 'digital_yuan'\noutcome.money_outcome = 'unknown'\noutcome.result = 'cancelled'\n\
                       outcome.terminal_condition = 'application'\noutcome.emv.fallback = true\nprofile.access_network = 'tethered'\n\
                       outcome.completion_time = { column = 'time', format = 'unix' }\n\
                       outcome.original.completion_time = { column = 'time', format = 'unix' }\n"
        .to_owned();
    let mut line = serde_json::Map::new();
    line.insert("time".into(), (Timestamp::now().as_second() - 60).into());
    for (field, length, sign) in fields {
        mapping.push_str(&format!("{field} = {{ column = '{}' }}\n", field.replace('.', "-")));
        let value: String = sign.chars().cycle().take(length).collect();
        line.insert(field.replace('.', "-"), value.into());
    }
    fs::write(place.path("all.toml"), mapping).unwrap();
    fs::write(place.path("log"), serde_json::to_string(&line).unwrap()).unwrap();
    let (mapping, log, token) = (place.path("all.toml"), place.path("log"), place.path("token"));
    let arguments = ["import", mapping.to_str().unwrap(), log.to_str().unwrap(), "--finished", "--gateway", &place.gateway, "--token-file"];
    let output = Faultline::output(&[&arguments[..], &[token.to_str().unwrap()]].concat()).await;
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("1 lines read: 1 outcomes acknowledged, 0 lines skipped, 0 not importable."), "{said}{output:?}");
    assert!(!said.contains("without"), "nothing of it was left out: {said}");

    let records = gateway.records().await;
    let batch = OutcomeBatch::decode(records[0].batch.clone()).unwrap();
    let outcome = batch.events[0].outcome.as_ref().unwrap();
    assert_eq!((batch.events[0].sequence, outcome.amount_minor, outcome.stage()), (1, 999_999_999_999, Stage::Print));
    assert_eq!((outcome.diagnostic.len(), outcome.host_id.len(), outcome.attempt), (256, 64, 999));
    assert_eq!(batch.profile.unwrap().apn.len(), 100);
    gateway.stop().await;
}
