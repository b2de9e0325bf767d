//! `faultline token`: credentials for terminals.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use clap::Args;
use uuid::Uuid;

/// Whose token it is, and where it is put.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Tenant whose outcomes it reports
    #[arg(long, value_name = "NAME")]
    tenant: String,
    /// The only terminal that it reports for
    #[arg(long, value_name = "ID", required_unless_present = "any_terminal")]
    terminal: Option<String>,
    /// It reports for every terminal of the tenant: for whoever collects outcomes of many, and names the terminal in each batch
    #[arg(long, conflicts_with = "terminal")]
    any_terminal: bool,
    /// The gateway's file of tokens (`gateway.token_file`). A line is added with the token's hash; a running gateway reads it within seconds
    #[arg(long, value_name = "FILE")]
    file: PathBuf,
}

/// Makes a token, adds its hash to the file and returns it.
pub(crate) fn add(options: &Options) -> anyhow::Result<String> {
    let token = random();
    let line = faultline_gateway::credential(&token, &options.tenant, options.terminal.as_deref()).map_err(|reason| anyhow!(reason))?;
    append(&options.file, &line).with_context(|| format!("cannot add a token to {} (--file)", options.file.display()))?;
    Ok(token)
}

/// A token that nobody guesses: 244 random bits, in hexadecimal digits.
pub(crate) fn random() -> String {
    format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple())
}

/// Adds a line to a file that only its owner may read; one that is made by hand may lack its last line's end.
fn append(path: &Path, line: &str) -> std::io::Result<()> {
    let mut file = File::options().create(true).read(true).append(true).mode(0o600).open(path)?;
    let mut last = [b'\n'];
    if file.metadata()?.len() > 0 {
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
    }
    let gap = if last == [b'\n'] { "" } else { "\n" };
    file.write_all(format!("{gap}{line}").as_bytes())
}

/// Writes a file that only its owner may read.
pub(crate) fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    File::options().create(true).write(true).truncate(true).mode(0o600).open(path)?.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_added_whatever_the_file_ends_with() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tokens");
        for (before, after) in [(None, "new\n"), (Some("old\n"), "old\nnew\n"), (Some("old"), "old\nnew\n")] {
            if let Some(before) = before {
                std::fs::write(&path, before).unwrap();
            }
            append(&path, "new\n").unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), after);
        }
    }

    #[test]
    fn no_two_tokens_are_the_same() {
        assert_ne!(random(), random());
        assert_eq!(random().len(), 64);
    }
}
