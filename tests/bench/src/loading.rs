//! How long a classifier takes to load a partition of a million terminals, and what it remembers of each: what a restart costs, and a process that takes over.

use std::path::Path;
use std::time::Duration;

use anyhow::bail;
use faultline_store::ClickHouseConfig;
use faultline_stream::{Cluster, KafkaConfig};
use tokio::process::Command;
use tokio::time::{Instant, sleep};

use crate::fleet;
use crate::gateway::produce;
use crate::local::{Local, record};
use crate::processes::{Service, gauge, resident_mib};
use crate::report::{Figure, say};
use crate::store::Store;

const TERMINALS: usize = 1_000_000;
/// What is of its own: topics, of one partition, and a database.
const NAME: &str = "loading";
const PATIENCE: Duration = Duration::from_secs(240);
const LOOK: Duration = Duration::from_millis(20);
/// How long memory takes to be what it stays.
const REST: Duration = Duration::from_secs(3);
const MIB: f64 = 1_048_576.0;

/// Measures it; the classifier says on this port what it knows.
pub(crate) async fn measure(program: &Path, local: &Local, port: u16) -> anyhow::Result<[Figure; 3]> {
    let kafka = KafkaConfig { topic_prefix: NAME.into(), partitions: 1, ..local.kafka.clone() };
    Cluster::new(&kafka)?.ensure_topics().await?;
    let store = Store::new(ClickHouseConfig { database: NAME.into(), ..local.clickhouse()? })?;
    let mut command = local.command(program, "classifier");
    command
        .env("FAULTLINE__KAFKA__TOPIC_PREFIX", NAME)
        .env("FAULTLINE__KAFKA__PARTITIONS", "1")
        .env("FAULTLINE__CLICKHOUSE__DATABASE", NAME);
    command.env("FAULTLINE__MONITORING__LISTEN", format!("127.0.0.1:{port}"));

    // Once, to make the schema.
    loaded(&mut command, (port, 0)).await?.service.stop().await?;
    let empty = loaded(&mut command, (port, 0)).await?;
    produce(&kafka, fleet::batches(1, (TERMINALS, 1))?.iter().map(record).collect()).await?;
    store.until_counted(TERMINALS).await?;
    // It keeps what it has seen before it ends.
    empty.service.stop().await?;
    let kept = store.query("SELECT uniqExact(terminal) FROM high_water WHERE terminal != ''").await?;
    if kept != TERMINALS.to_string() {
        bail!("{kept} of {TERMINALS} terminals are kept");
    }
    let full = loaded(&mut command, (port, TERMINALS)).await?;
    full.service.stop().await?;
    let of_terminal = (full.resident_mib - empty.resident_mib) * MIB / f64::from(u32::try_from(TERMINALS)?);
    say(&format!(
        "ingest: a partition of {TERMINALS} terminals is loaded in {:.1} s, an empty one in {:.1} s\n",
        full.seconds, empty.seconds
    ));
    Ok([
        Figure::at_most(("load_partition_of_1m_terminals_s", "s"), 10.0, full.seconds),
        Figure::stated(("load_empty_partition_s", "s"), empty.seconds),
        Figure::stated(("bytes_per_terminal", "B"), of_terminal),
    ])
}

/// A classifier that has its partition.
struct Loaded {
    service: Service,
    /// From its start on.
    seconds: f64,
    resident_mib: f64,
}

/// Starts a classifier, and waits until it has its partition and knows so many terminals.
async fn loaded(command: &mut Command, (port, terminals): (u16, usize)) -> anyhow::Result<Loaded> {
    let begin = Instant::now();
    let service = Service::start(command)?;
    let terminals = f64::from(u32::try_from(terminals)?);
    while gauge(port, "faultline_classifier_spools").await.is_none_or(|known| known < terminals) {
        if begin.elapsed() > PATIENCE {
            bail!("the classifier does not know {terminals} terminals after {} s", PATIENCE.as_secs());
        }
        sleep(LOOK).await;
    }
    let seconds = begin.elapsed().as_secs_f64();
    sleep(REST).await;
    let resident_mib = resident_mib(service.pid()?)?;
    Ok(Loaded { service, seconds, resident_mib })
}
