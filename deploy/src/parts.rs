//! The programs of the local parts on this machine: found, or installed first.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::install::{InstallError, at};
use crate::{clickhouse, kafka};

/// The parts of this machine, installed and verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parts {
    pub(crate) java: PathBuf,
    pub(crate) kafka: PathBuf,
    pub(crate) clickhouse_library: PathBuf,
}

impl Parts {
    /// Finds the parts in `cache`, and fetches nothing.
    ///
    /// # Errors
    /// When one is not there, or Java is missing or too old.
    pub async fn find(cache: &Path) -> Result<Parts, InstallError> {
        if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
            return Err(InstallError::Platform);
        }
        let java = kafka::java().await?;
        let kafka = kafka::directory(cache);
        let clickhouse_library = clickhouse::library(cache)?;
        for (part, path) in [("Kafka", &kafka), ("ClickHouse", &clickhouse_library)] {
            if !path.exists() {
                return Err(InstallError::Missing { part, cache: cache.to_path_buf() });
            }
        }
        Ok(Parts { java, kafka, clickhouse_library })
    }

    /// Finds the parts in `cache`, and first fetches, verifies and installs what is not there. Safe to run twice at the same time.
    ///
    /// # Errors
    /// When a program is missing, a registry does not answer, or what arrives is not what is pinned.
    pub async fn install(cache: &Path) -> Result<Parts, InstallError> {
        match Parts::find(cache).await {
            Err(InstallError::Missing { .. }) => {}
            found => return found,
        }
        fs::create_dir_all(cache).map_err(at(cache))?;
        let lock_path = cache.join("lock");
        let lock = File::create(&lock_path).map_err(at(&lock_path))?;
        // Another installation may be under way; when it is done there is nothing left to do here.
        tokio::task::spawn_blocking(move || lock.lock().map(|()| lock))
            .await
            .map_err(io::Error::other)
            .flatten()
            .map_err(at(&lock_path))?;
        kafka::install(cache).await?;
        clickhouse::install(cache).await?;
        Parts::find(cache).await
    }
}
