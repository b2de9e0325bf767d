//! Two ClickHouse servers as shards: what is of a partition is on one of them, what is asked is asked of both.

use std::fs;

use faultline_deploy::{LocalConfig, LocalParts, Parts, Wanted};
use faultline_store::{ClickHouseConfig, HttpUrls, families};
use faultline_stream::KafkaConfig;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use secrecy::ExposeSecret;
use tempfile::TempDir;

use crate::program::{Faultline, eventually, process};
use crate::sandbox::{clickhouse_of, ports, program, sandbox, scratch};
use crate::services::{Gateway, Service, Settings, http, query, query_if_up, settings_with};
use crate::terminal::{batch, event};

/// The password of both servers: they ask each other with it.
const PASSWORD: &str = "of-both-shards";
const TERMINALS: u64 = 40;

/// A server of a cluster.
struct Shard {
    local: LocalConfig,
    parts: LocalParts,
    /// Its own tables, not those of all.
    own: ClickHouseConfig,
}

/// Starts two servers that know each other as the cluster `pair`.
async fn pair(directory: &TempDir) -> [Shard; 2] {
    let locals = [0, 1].map(|number| LocalConfig { data_dir: directory.path().join(format!("shard-{number}")), ..ports() });
    let shards = locals.each_ref().map(|local| {
        let port = local.clickhouse_native_port;
        format!(
            "<shard><replica><host>127.0.0.1</host><port>{port}</port><user>faultline</user><password>{PASSWORD}</password></replica></shard>"
        )
    });
    let cluster = format!("<clickhouse><remote_servers><pair>{}</pair></remote_servers></clickhouse>", shards.concat());
    let parts = Parts::find(&locals[0].parts_directory().unwrap(), Wanted { kafka: false, clickhouse: true }).await.unwrap();
    let start = async |local: LocalConfig| {
        let place = local.data_dir.join("clickhouse");
        fs::create_dir_all(place.join("config.d")).unwrap();
        fs::write(place.join("config.d/cluster.xml"), &cluster).unwrap();
        fs::write(place.join("password"), PASSWORD).unwrap();
        let parts = LocalParts::start(&local, &parts, &program()).await.unwrap();
        let own = clickhouse_of(&parts);
        Shard { local, parts, own }
    };
    let [first, second] = locals;
    let (first, second) = tokio::join!(start(first), start(second));
    for shard in [&first, &second] {
        eventually("the shard answers", async || {
            query_if_up(&ClickHouseConfig { database: "default".into(), ..shard.own.clone() }, "SELECT 1").await
        })
        .await;
    }
    [first, second]
}

fn settings(kafka: &KafkaConfig, config: &ClickHouseConfig) -> Settings {
    let mut settings = settings_with(kafka, config);
    settings.push(("CLICKHOUSE__SHARDS", String::from(config.shards.clone())));
    settings.push(("CLICKHOUSE__CLUSTER", config.cluster.clone()));
    settings
}

/// So many rows over both shards, once in the rows and in every family, each shard's sums being those of its own rows; and both have some.
async fn counted(shards: &[Shard; 2], all: &ClickHouseConfig, rows: u64) {
    let stored = async || (query_if_up(all, "SELECT sum(sign) FROM outcomes").await? == rows.to_string()).then_some(());
    eventually(&format!("{rows} rows are stored"), stored).await;
    for family in families() {
        let sum = format!("SELECT sum(count) FROM rollup WHERE family = '{family}'");
        eventually(&format!("{rows} are counted in {family}"), async || (query(all, &sum).await == rows.to_string()).then_some(())).await;
    }
    let distinct = "SELECT uniqExact(terminal, spool, sequence) FROM outcomes";
    assert_eq!(query(all, distinct).await, rows.to_string());
    for (number, shard) in shards.iter().enumerate() {
        let own = query(
            &shard.own,
            "SELECT sum(sign), countIf(kafka_partition != 65535 AND kafka_partition % 2 != {n}) FROM outcomes"
                .replace("{n}", &number.to_string())
                .as_str(),
        )
        .await;
        let (some, misplaced) = own.split_once('\t').unwrap();
        assert!(some.parse::<u64>().unwrap() > 0 && misplaced == "0", "shard {number}: {own}");
        assert_eq!(query(&shard.own, "SELECT sum(count) FROM rollup WHERE family = 'issuer'").await, some);
    }
}

#[tokio::test]
async fn two_shards_share_the_rows_and_answer_as_one() {
    let directory = scratch("shards");
    let shards = pair(&directory).await;
    let kafka = KafkaConfig { topic_prefix: "shards".into(), ..sandbox().await.kafka.clone() };
    let urls = shards.each_ref().map(|shard| shard.own.url.to_string()).join(",");
    let config = ClickHouseConfig { shards: HttpUrls::try_from(urls).unwrap(), cluster: "pair".into(), ..shards[0].own.clone() };
    let all = ClickHouseConfig { database: "faultline_all".into(), ..config.clone() };

    let classifier = Service::start("classifier", settings(&kafka, &config));
    let gateway = Gateway::start_on(kafka, &[]).await;
    tokio::join!(gateway.service.until_ready(), classifier.until_ready());
    let alerter = Service::start("alerter", settings(&gateway.kafka, &config));
    alerter.until_ready().await;
    let collector = gateway.collector().await;
    let report = async |first: u64| {
        for terminal in 0..TERMINALS {
            let events = (first..first + 10).map(event).collect();
            collector
                .report(faultline_proto::ingest::v1::OutcomeBatch { terminal_id: format!("T-{terminal}"), ..batch(events) })
                .await
                .unwrap();
        }
    };
    report(1).await;
    counted(&shards, &all, TERMINALS * 10).await;

    // What is of one shard goes on while the other is stopped, and the rest comes when it is back.
    let server = process(&shards[1].local.data_dir, "clickhouse-server").unwrap();
    kill(Pid::from_raw(server), Signal::SIGSTOP).unwrap();
    report(11).await;
    let on_first = async || {
        let newest = "SELECT count() FROM outcomes WHERE sequence > 10";
        (query(&shards[0].own, newest).await.parse::<u64>().unwrap() > 0).then_some(())
    };
    eventually("the first shard goes on", on_first).await;
    kill(Pid::from_raw(server), Signal::SIGCONT).unwrap();
    counted(&shards, &all, TERMINALS * 20).await;

    // Corrections go to the rows that they correct.
    let issuers = directory.path().join("issuers.csv");
    fs::write(&issuers, "# version: other\nprefix,issuer,name_zh_cn,name_en\n62,union,银联,Union\n").unwrap();
    let replay = ["replay", "--tenant", "acme", "--from", "1h", "--issuers", issuers.to_str().unwrap(), "--yes"];
    let ended = Faultline::start(&replay, &settings(&gateway.kafka, &config)).end().await;
    assert!(ended.status.success(), "{}", ended.stderr);
    counted(&shards, &all, TERMINALS * 20).await;
    let union = "SELECT key, sum(count) AS some FROM rollup WHERE family = 'issuer' GROUP BY key HAVING some != 0";
    assert_eq!(query(&all, union).await, format!("union\t{}", TERMINALS * 20));

    // Whoever asks sees one Faultline.
    let mut settings = settings(&gateway.kafka, &config);
    let port = crate::sandbox::port();
    settings.push(("CONSOLE__LISTEN", format!("127.0.0.1:{port}")));
    let console = Service::start("console", settings);
    console.until_ready().await;
    let url = format!("http://127.0.0.1:{port}/api/v1/tenants/acme/outcomes?minutes=60&limit=200");
    let answer: serde_json::Value = serde_json::from_str(&http().get(url).send().await.unwrap().text().await.unwrap()).unwrap();
    let terminals: std::collections::BTreeSet<_> =
        answer["outcomes"].as_array().unwrap().iter().map(|outcome| outcome["terminal"].as_str().unwrap().to_owned()).collect();
    assert!(terminals.len() > 5 && !answer.to_string().contains(config.password.expose_secret()), "{terminals:?}");
    alerter.stop().await;
    classifier.stop().await;
    let [first, second] = shards;
    tokio::join!(first.parts.stop(), second.parts.stop());
}
