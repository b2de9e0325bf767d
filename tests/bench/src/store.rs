//! ClickHouse, asked directly.

use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use faultline_store::ClickHouseConfig;
use reqwest::Client;
use reqwest::header::CONTENT_LENGTH;
use secrecy::ExposeSecret;
use tokio::time::{sleep, timeout};

use crate::local::until;

const PATIENCE: Duration = Duration::from_secs(240);
/// How many events are counted. What corrections take away and add is of a partition that no topic has.
pub(crate) const COUNTED: &str = "SELECT sum(count) FROM rollup WHERE tenant = '' AND family = 'ledger' AND key NOT LIKE '%:65535:%'";
/// How long there are no merges before they have settled.
const QUIET: u32 = 5;

/// ClickHouse, asked directly.
pub(crate) struct Store {
    pub(crate) config: ClickHouseConfig,
    client: Client,
}

impl Store {
    pub(crate) fn new(config: ClickHouseConfig) -> anyhow::Result<Store> {
        // A client wants a provider of cryptography, also where nothing is encrypted. A second one is refused, and is the same.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Ok(Store { config, client: Client::builder().no_proxy().build()? })
    }

    pub(crate) async fn query(&self, sql: &str) -> anyhow::Result<String> {
        let answer = self.send(&[("query", sql)], Bytes::new()).await?;
        Ok(std::str::from_utf8(&answer)?.trim().to_owned())
    }

    pub(crate) async fn send(&self, parameters: &[(&str, &str)], body: Bytes) -> anyhow::Result<Bytes> {
        let mut url: reqwest::Url = self.config.url.to_string().parse()?;
        url.query_pairs_mut().extend_pairs(parameters).append_pair("database", &self.config.database);
        let request = self.client.post(url).basic_auth(&self.config.user, Some(self.config.password.expose_secret()));
        // ClickHouse wants to be told also that there is nothing.
        let response = request.header(CONTENT_LENGTH, body.len()).body(body).send().await?;
        let (is_done, answer) = (response.status().is_success(), response.bytes().await?);
        if !is_done {
            bail!("ClickHouse says: {}", String::from_utf8_lossy(&answer));
        }
        Ok(answer)
    }

    /// How many events are stored and counted.
    pub(crate) async fn counted(&self) -> anyhow::Result<u64> {
        Ok(self.query(COUNTED).await?.parse()?)
    }

    /// Waits until so many are.
    pub(crate) async fn until_counted(&self, events: usize) -> anyhow::Result<()> {
        let events = u64::try_from(events)?;
        until("everything is counted", PATIENCE, async || Ok(self.counted().await? >= events)).await
    }

    /// Waits until the server has nothing to merge for a while.
    pub(crate) async fn until_settled(&self) -> anyhow::Result<()> {
        let mut quiet = 0;
        timeout(PATIENCE, async {
            while quiet < QUIET {
                sleep(Duration::from_secs(1)).await;
                quiet = if self.query("SELECT count() FROM system.merges").await? == "0" { quiet + 1 } else { 0 };
            }
            anyhow::Ok(())
        })
        .await
        .context("the server does not end merging")?
    }
}
