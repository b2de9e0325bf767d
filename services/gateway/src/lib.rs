//! The way in: terminals' batches over gRPC into Kafka.
//!
//! ```text
//! terminal ──gRPC──▶ service ──▶ share ──────▶ in_flight ──▶ admission ──▶ Kafka (all in-sync replicas) ──▶ acknowledgement
//!                    token:      what one      room, or      every field by its
//!                    who is it?  terminal may  shed load     own grammar, card numbers overwritten
//! ```

mod admission;
mod config;
mod connections;
mod counts;
mod credentials;
mod encoded;
#[cfg(test)]
mod fuzz;
mod grammar;
mod in_flight;
mod problem;
mod profile;
mod rules;
mod service;
mod share;
mod wire;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use faultline_bundle::{Bundle, KeyError, PublicKey};
use faultline_runtime::error::with_causes;
use faultline_runtime::readiness::Readiness;
use faultline_runtime::reload::{self, Version};
use faultline_stream::{Cluster, KafkaConfig, OutcomeProducer, StreamError};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::codec::CompressionEncoding;
use tonic::server::NamedService;
use tonic::transport::{Identity, Server, ServerTlsConfig};
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

pub use crate::config::{GatewayConfig, ShareConfig, TerminalsConfig};
use crate::credentials::Credentials;
pub use crate::credentials::{CredentialsError, line as credential};
use crate::in_flight::InFlight;
use crate::rules::Offer;
use crate::service::MAX_MESSAGE_BYTES;
use crate::service::server::ingest_service_server::IngestServiceServer;
use crate::share::Shares;

/// What the gateway calls Kafka where it says what is in its way.
const KAFKA: &str = "Kafka";
/// Pause between two looks at the topics.
const CHECK_PAUSE: Duration = Duration::from_secs(5);
/// How long Kafka may be silent and the gateway still ready: a broker that pauses is not to take every gateway from its balancer at once.
const SILENCE: Duration = Duration::from_secs(10);
/// How long the last answers may take to be read.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Why the gateway does not run.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// A setting is not one.
    #[error("configuration key `gateway.{key}`: {reason}")]
    Setting {
        /// The key, after `gateway.`.
        key: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The tokens cannot be used.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// Kafka is not one to which acknowledged events can be trusted.
    #[error(transparent)]
    Kafka(#[from] StreamError),
    /// The contract cannot be shown to tools.
    #[error("server reflection")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// The server failed.
    #[error("the gRPC server")]
    Server(#[from] tonic::transport::Error),
}

/// A gateway that is set up and does not serve yet.
pub struct Gateway {
    config: GatewayConfig,
    credentials: Credentials,
    credentials_version: Option<Version>,
    rules: Option<Rules>,
    cluster: Cluster,
    producer: OutcomeProducer,
    server: Server,
    readiness: Readiness,
}

/// The rules that terminals are given at first, and with which key they are checked.
struct Rules {
    bundle: Arc<Bundle>,
    version: Option<Version>,
    key: PublicKey,
}

impl Gateway {
    /// Reads tokens, rules, certificate and key. Kafka is not asked anything yet, and `readiness` says so.
    ///
    /// # Errors
    /// When a setting or a file that it names is not what it is to be.
    pub fn new(config: &GatewayConfig, kafka: &KafkaConfig, readiness: &Readiness) -> Result<Gateway, GatewayError> {
        if config.token_file.as_os_str().is_empty() {
            let reason = "must name the file of bearer tokens; `faultline token --help` says how to make one".into();
            return Err(GatewayError::Setting { key: "token_file", reason });
        }
        config.check().map_err(|(key, reason)| GatewayError::Setting { key, reason })?;
        let credentials_version = reload::version([config.token_file.as_path()]);
        let gateway = Gateway {
            config: config.clone(),
            credentials: Credentials::load(&config.token_file)?,
            credentials_version,
            rules: rules_of(&config.terminals)?,
            cluster: Cluster::new(kafka)?,
            producer: OutcomeProducer::new(kafka)?,
            server: server(config)?,
            readiness: readiness.clone(),
        };
        readiness.expect(KAFKA);
        Ok(gateway)
    }

    /// Serves until `stop`, then answers what it has taken, at most for `gateway.drain_within`, and ends. While Kafka does not answer, or has not
    /// the topics that it should, calls are answered with UNAVAILABLE.
    ///
    /// # Errors
    /// When Kafka answers at first and its topics are not ones to which acknowledged events can be trusted, or the server fails.
    pub async fn serve(mut self, listener: TcpListener, stop: CancellationToken) -> Result<(), GatewayError> {
        counts::describe();
        counts::tokens(self.credentials.count());
        if self.config.tls_key_file.as_os_str().is_empty() && listener.local_addr().is_ok_and(|address| !address.ip().is_loopback()) {
            tracing::warn!("tokens and outcomes travel unencrypted: `gateway.tls_certificate_file` and `gateway.tls_key_file` are not set");
        }
        let (tokens, credentials) = watch::channel(self.credentials);
        let of_file = self.rules.take();
        let (bundles, rules) = watch::channel(of_file.as_ref().map(|rules| Arc::clone(&rules.bundle)));
        let settings_version = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| since.as_secs());
        let shared = Arc::new(service::Shared {
            credentials,
            producer: self.producer,
            shares: Shares::new(&self.config.share),
            in_flight: InFlight::new(u32::try_from(self.config.in_flight.as_u64()).unwrap_or(u32::MAX)),
            settings: self.config.terminals.message(settings_version),
            rules: Offer::new(rules, self.config.terminals.rules_within),
            open: AtomicBool::new(false),
            stop: stop.clone(),
            sessions: TaskTracker::new(),
        });
        let (health, health_service) = tonic_health::server::health_reporter();
        let ingest = IngestServiceServer::new(Arc::clone(&shared))
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .accept_compressed(CompressionEncoding::Gzip);
        let silence = self.config.keepalive_interval + self.config.keepalive_timeout;
        let incoming = connections::accept(listener, connections::affordable(self.config.max_connections), silence);
        let serving = self
            .server
            .add_service(health_service)
            .add_service(reflection().build_v1()?)
            .add_service(reflection().build_v1alpha()?)
            .add_service(ingest)
            .serve_with_incoming_shutdown(incoming, stop.cancelled());
        let limit = self.config.drain_within;
        let serving = async {
            serving.await?;
            // Terminals that hung up have left batches behind.
            answered(&shared, limit).await;
            Ok(())
        };
        let drained = async {
            stop.cancelled().await;
            answered(&shared, limit).await;
            // The last answers are on their way; the server ends before this where all of them have been read.
            sleep(LAST_WORDS).await;
        };
        let following_rules = async {
            match of_file {
                Some(Rules { key, version, .. }) => rules::follow((&self.config.terminals.rules_bundle, key), version, bundles).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            served = serving => served,
            refused = watch_kafka(&self.cluster, &self.readiness, &shared.open) => Err(refused.into()),
            () = drained => Ok(()),
            never = credentials::follow(&self.config.token_file, self.credentials_version, tokens) => never,
            never = following_rules => never,
            never = say_health(&health, &self.readiness) => never,
        }
    }
}

/// Makes sure of the topics, then sees to it that they stay what they are to be: nothing is acknowledged on the word of topics that are not. A Kafka that
/// does not answer has what it had, and what it does not take in time is not acknowledged: that closes nothing. Returns why the topics cannot be
/// used, where that is so from the beginning.
async fn watch_kafka(cluster: &Cluster, readiness: &Readiness, open: &AtomicBool) -> StreamError {
    let prepare = async || {
        cluster.probe().await?;
        cluster.ensure_topics().await?;
        cluster.check_topics().await
    };
    if let Err(refused) = readiness.until_prepared(KAFKA, prepare, StreamError::is_worth_a_retry).await {
        return refused;
    }
    open.store(true, Ordering::Release);
    let mut last_answer = Instant::now();
    let check = async || {
        let checked = cluster.check_topics().await;
        if !checked.as_ref().is_err_and(StreamError::is_silence) {
            open.store(checked.is_ok(), Ordering::Release);
            last_answer = Instant::now();
        } else if last_answer.elapsed() < SILENCE {
            return Ok(());
        }
        checked
    };
    readiness.watch(KAFKA, CHECK_PAUSE, check).await
}

/// Waits until every session has met its end, at most for `limit`. Who only holds a connection is not waited for.
async fn answered(shared: &service::Shared, limit: Duration) {
    shared.sessions.close();
    if timeout(limit, shared.sessions.wait()).await.is_err() {
        tracing::warn!(calls = shared.sessions.len(), "cut off: they were not answered within {} s", limit.as_secs_f32());
    }
}

fn reflection() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(faultline_proto::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
}

/// Says by gRPC's health protocol what `readiness` says, for ever.
async fn say_health(health: &HealthReporter, readiness: &Readiness) -> ! {
    loop {
        let ready = readiness.obstacles().is_empty();
        let status = if ready { ServingStatus::Serving } else { ServingStatus::NotServing };
        // Of the service, and of the server as a whole.
        for name in [<IngestServiceServer<Arc<service::Shared>> as NamedService>::NAME, ""] {
            health.set_service_status(name, status).await;
        }
        readiness.until_not(ready).await;
    }
}

/// The rules that are configured, if any.
fn rules_of(config: &TerminalsConfig) -> Result<Option<Rules>, GatewayError> {
    let path = &config.rules_bundle;
    if path.as_os_str().is_empty() {
        return Ok(None);
    }
    let setting = |key, reason| GatewayError::Setting { key, reason };
    let wrong =
        |error: KeyError| setting("terminals.rules_key", format!("{error}; it is needed since `gateway.terminals.rules_bundle` is set"));
    let key = config.rules_key.parse::<PublicKey>().map_err(wrong)?;
    let version = reload::version([path.as_path()]);
    let (bundle, rules) = rules::load(path, key).map_err(|error| setting("terminals.rules_bundle", with_causes(&error)))?;
    tracing::info!(rules, issued = %bundle.issue_time(), "terminals are given these rules");
    Ok(Some(Rules { bundle: Arc::new(bundle), version, key }))
}

/// A server with the certificate and key that are configured, if any.
fn server(config: &GatewayConfig) -> Result<Server, GatewayError> {
    let server = Server::builder()
        .http2_keepalive_interval(Some(config.keepalive_interval))
        .http2_keepalive_timeout(Some(config.keepalive_timeout))
        .max_concurrent_streams(Some(config.max_calls_per_connection));
    let (certificate, key) = (&config.tls_certificate_file, &config.tls_key_file);
    let given = |path: &PathBuf| !path.as_os_str().is_empty();
    let missing = |key, other: &str| GatewayError::Setting { key, reason: format!("is needed too, since `gateway.{other}` is set") };
    let read = |key: &'static str, path: &Path| {
        std::fs::read(path).map_err(|error| GatewayError::Setting { key, reason: format!("cannot read {}: {error}", path.display()) })
    };
    match (given(certificate), given(key)) {
        (false, false) => Ok(server),
        (false, true) => Err(missing("tls_certificate_file", "tls_key_file")),
        (true, false) => Err(missing("tls_key_file", "tls_certificate_file")),
        (true, true) => {
            let identity = Identity::from_pem(read("tls_certificate_file", certificate)?, read("tls_key_file", key)?);
            server.tls_config(ServerTlsConfig::new().identity(identity)).map_err(|error| {
                let reason = format!(
                    "no certificate and key that belong together are in {} and {} (`gateway.tls_key_file`): {}",
                    certificate.display(),
                    key.display(),
                    with_causes(&error)
                );
                GatewayError::Setting { key: "tls_certificate_file", reason }
            })
        }
    }
}
