//! Whether what was shown is done: said beforehand, or asked.

use std::io::{IsTerminal, Write};

use anyhow::{Context, bail};
use clap::Args;

/// Whether what is shown is done.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Consent {
    /// Show what would be done, and do nothing
    #[arg(long, conflicts_with = "yes")]
    pub(crate) dry_run: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

impl Consent {
    /// Asks, unless it is said already. Without a person to ask, it has to be.
    pub(crate) async fn is_given(self, question: &str) -> anyhow::Result<bool> {
        if self.yes {
            return Ok(true);
        }
        if !std::io::stdin().is_terminal() {
            bail!("nobody can be asked whether to do it: say --yes, or --dry-run to see what would be done");
        }
        crate::output::finish();
        let question = format!("{question} [y/N] ");
        let asking = tokio::task::spawn_blocking(move || {
            let mut error = std::io::stderr().lock();
            write!(error, "{question}").and_then(|()| error.flush()).context("cannot ask")?;
            let mut said = String::new();
            std::io::stdin().read_line(&mut said).context("cannot read the answer")?;
            anyhow::Ok(said)
        });
        let said = asking.await.context("cannot ask")??;
        Ok(matches!(said.trim(), "y" | "Y" | "yes"))
    }
}
