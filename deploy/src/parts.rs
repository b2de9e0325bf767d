//! The programs of the local parts on this machine: found, or installed first.

use std::path::{Path, PathBuf};

use crate::install::{CacheLock, InstallError, require};
use crate::local::Wanted;
use crate::{clickhouse, kafka};

/// Those parts of this machine that are wanted, installed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parts {
    pub(crate) kafka: Option<KafkaProgram>,
    /// The library that carries the ClickHouse server.
    pub(crate) clickhouse: Option<PathBuf>,
}

/// What runs Kafka.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KafkaProgram {
    pub(crate) java: PathBuf,
    /// Where its jars are.
    pub(crate) install: PathBuf,
}

impl Parts {
    /// Finds the parts in `cache`, and fetches nothing.
    ///
    /// # Errors
    /// When one is not there, or Java is missing or too old.
    pub async fn find(cache: &Path, wanted: Wanted) -> Result<Parts, InstallError> {
        if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
            return Err(InstallError::Platform);
        }
        require("setpriv", "leave no process behind")?;
        let kafka = if wanted.kafka { Some(kafka::find(cache).await?) } else { None };
        let clickhouse = if wanted.clickhouse { Some(clickhouse::find(cache)?) } else { None };
        Ok(Parts { kafka, clickhouse })
    }

    /// Finds the parts in `cache`, and first fetches, verifies and installs what is not there. Safe to run twice at the same time.
    ///
    /// # Errors
    /// When a program is missing, a registry does not answer, or what arrives is not what is pinned.
    pub async fn install(cache: &Path, wanted: Wanted) -> Result<Parts, InstallError> {
        match Parts::find(cache, wanted).await {
            Ok(parts) if parts.kafka.as_ref().is_none_or(kafka::has_class_archive) => return Ok(parts),
            Ok(_) | Err(InstallError::Missing { .. }) => {}
            Err(error) => return Err(error),
        }
        let _lock = CacheLock::take(cache).await?;
        if wanted.kafka {
            kafka::install(cache).await?;
        }
        if wanted.clickhouse {
            clickhouse::install(cache).await?;
        }
        Parts::find(cache, wanted).await
    }

    /// Compares every file of the parts with its pinned checksum.
    ///
    /// # Errors
    /// When a file is missing, changed, or not pinned.
    pub async fn verify(&self, cache: &Path) -> Result<(), InstallError> {
        if self.kafka.is_some() {
            kafka::verify(cache).await?;
        }
        if self.clickhouse.is_some() {
            clickhouse::verify(cache).await?;
        }
        Ok(())
    }
}
