//! Several brokers on one machine, to try what becomes of a cluster that loses some of them.
//!
//! Not for keeping data: they share one disk, so nothing is safer with three of them than with the one of [`LocalParts`](crate::LocalParts).

use std::fs::{DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use crate::kafka::{self, Node, NodePorts, new_cluster_id};
use crate::local::{StartError, lock};
use crate::supervisor::{ChildSpec, Supervisor};

/// Kafka nodes, each broker and controller in one. They are called by numbers from 1, and keep their data in `kafka-1`, `kafka-2`, and so on.
/// All of them end with the process that holds this.
#[derive(Debug)]
pub struct KafkaCluster {
    brokers: Vec<Broker>,
    bootstrap: String,
    /// Keeps others from the directory.
    _lock: File,
}

#[derive(Debug)]
struct Broker {
    child: ChildSpec,
    /// None while it is down.
    supervisor: Option<Supervisor>,
}

impl Broker {
    fn start(child: ChildSpec) -> Result<Broker, StartError> {
        let supervisor = Supervisor::start(vec![child.clone()]).map_err(StartError::Supervisor)?;
        Ok(Broker { child, supervisor: Some(supervisor) })
    }
}

impl KafkaCluster {
    /// Starts a node for each of `ports` in a new directory, with the Kafka that is installed in `cache`. They may take seconds to answer; one that
    /// dies by itself is started again.
    ///
    /// # Errors
    /// When Kafka is not installed, the directory is in use or not writable, or a node's storage cannot be prepared.
    pub async fn start(cache: &Path, directory: &Path, ports: &[NodePorts], heap_mib: u32) -> Result<KafkaCluster, StartError> {
        let program = kafka::find(cache).await?;
        let unusable = |source| StartError::DataDirectory { path: directory.to_path_buf(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(unusable)?;
        let lock = lock(directory)?;
        let cluster_id = new_cluster_id();
        let mut children = Vec::new();
        for (id, own) in (1..).zip(ports) {
            let directory = directory.join(format!("kafka-{id}"));
            let node = Node { program: &program, id, ports: own, cluster: ports, directory, heap_mib };
            node.prepare(&cluster_id).await?;
            children.push(node.child());
        }
        let brokers = children.into_iter().map(Broker::start).collect::<Result<_, _>>()?;
        let addresses = ports.iter().map(|own| format!("127.0.0.1:{}", own.clients));
        Ok(KafkaCluster { brokers, bootstrap: addresses.collect::<Vec<_>>().join(","), _lock: lock })
    }

    /// Addresses of all brokers, separated by commas.
    #[must_use]
    pub fn bootstrap_servers(&self) -> &str {
        &self.bootstrap
    }

    /// Kills a node, as the loss of its machine would (SIGKILL). It stays down until [`KafkaCluster::start_again`]. Returns when it has ended.
    pub async fn kill(&mut self, id: usize) {
        if let Some(supervisor) = self.broker(id).and_then(|broker| broker.supervisor.take()) {
            supervisor.kill().await;
        }
    }

    /// Starts a node that was killed, with what it has kept.
    ///
    /// # Errors
    /// When it cannot be supervised.
    pub fn start_again(&mut self, id: usize) -> Result<(), StartError> {
        if let Some(broker) = self.broker(id).filter(|broker| broker.supervisor.is_none()) {
            *broker = Broker::start(broker.child.clone())?;
        }
        Ok(())
    }

    fn broker(&mut self, id: usize) -> Option<&mut Broker> {
        self.brokers.get_mut(id.checked_sub(1)?)
    }
}
