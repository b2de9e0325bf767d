//! Who may report, and as what: a file of hashed bearer tokens.
//!
//! A line is `<SHA-256 of the token, 64 hexadecimal digits> <tenant> <terminal>`; a terminal of `*` stands for every terminal of the tenant. Empty
//! lines and what follows a `#` do not count. Tokens are random and long, so a plain hash gives nothing away (a password would
//! need a slow one).

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use faultline_runtime::reload::{self, Version};
use sha2::{Digest, Sha256};
use tokio::sync::watch;

use crate::counts;

type Hash = [u8; 32];

/// What a token stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) tenant: Arc<str>,
    /// None: every terminal of the tenant.
    pub(crate) terminal: Option<Arc<str>>,
}

/// What one call was granted.
#[derive(Clone, Debug)]
pub(crate) struct Access {
    token_hash: Hash,
    pub(crate) identity: Identity,
}

/// A file of credentials that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// It cannot be read.
    #[error("cannot read the tokens in {} (`gateway.token_file`)", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What happened.
        source: io::Error,
    },
    /// A line is not a credential. The line itself is not shown: it may hold a token.
    #[error("the tokens in {} (`gateway.token_file`): line {line} {reason}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, counting from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// Nobody could report.
    #[error("there are no tokens in {} (`gateway.token_file`)", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
}

/// Every credential of a file.
#[derive(Debug, Default)]
pub(crate) struct Credentials(HashMap<Hash, Identity>);

impl Credentials {
    pub(crate) fn load(path: &Path) -> Result<Credentials, CredentialsError> {
        let unreadable = |source| CredentialsError::Read { path: path.to_path_buf(), source };
        let mut credentials = HashMap::new();
        let mut tenants: HashMap<String, Arc<str>> = HashMap::new();
        for (index, line) in BufReader::new(File::open(path).map_err(unreadable)?).lines().enumerate() {
            let text = line.map_err(unreadable)?;
            let wrong = |reason: String| CredentialsError::Line { path: path.to_path_buf(), line: index + 1, reason };
            let Some(parsed) = parse(&text).map_err(wrong)? else { continue };
            let tenant = Arc::clone(tenants.entry(parsed.tenant.to_owned()).or_insert_with(|| Arc::from(parsed.tenant)));
            let identity = Identity { tenant, terminal: parsed.terminal.map(Arc::from) };
            if credentials.insert(parsed.hash, identity).is_some() {
                return Err(wrong("has a token that an earlier line has too".into()));
            }
        }
        if credentials.is_empty() {
            return Err(CredentialsError::Empty { path: path.to_path_buf() });
        }
        Ok(Credentials(credentials))
    }

    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// What a token stands for, and how to ask later whether it still does.
    pub(crate) fn identify(&self, token: &str) -> Option<Access> {
        let token_hash = Hash::from(Sha256::digest(token));
        Some(Access { token_hash, identity: self.0.get(&token_hash)?.clone() })
    }

    /// Whether the token is known, and stands for what it stood for.
    pub(crate) fn still_grant(&self, access: &Access) -> bool {
        self.0.get(&access.token_hash) == Some(&access.identity)
    }
}

struct Line<'a> {
    hash: Hash,
    tenant: &'a str,
    terminal: Option<&'a str>,
}

fn parse(line: &str) -> Result<Option<Line<'_>>, String> {
    let content = line.split_once('#').map_or(line, |(content, _)| content);
    let mut words = content.split_whitespace();
    let Some(hash) = words.next() else { return Ok(None) };
    let (Some(tenant), Some(terminal), None) = (words.next(), words.next(), words.next()) else {
        return Err("is not a SHA-256, a tenant and a terminal".into());
    };
    let mut bytes = Hash::default();
    hex::decode_to_slice(hash, &mut bytes).map_err(|_| "does not begin with the 64 hexadecimal digits of a SHA-256".to_owned())?;
    // What stands in the wrong column may be a token, so it is not shown.
    let misplaced = |what: &str| format!("has a {what} that is not {NAME}");
    if !is_name(tenant) {
        return Err(misplaced("tenant"));
    }
    if terminal != "*" && !is_name(terminal) {
        return Err(misplaced("terminal"));
    }
    Ok(Some(Line { hash: bytes, tenant, terminal: (terminal != "*").then_some(terminal) }))
}

/// What a tenant or a terminal may be called.
const NAME: &str = "1 to 32 of A-Z a-z 0-9 . _ -";

fn is_name(value: &str) -> bool {
    (1..=32).contains(&value.len()) && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

/// The line for a new token.
///
/// # Errors
/// With what is wrong with the tenant or the terminal.
pub fn line(token: &str, tenant: &str, terminal: Option<&str>) -> Result<String, String> {
    for (what, value) in [("tenant", Some(tenant)), ("terminal", terminal)] {
        if let Some(value) = value.filter(|value| !is_name(value)) {
            return Err(format!("`{}` cannot be a {what}: a {what} is {NAME}", value.escape_debug()));
        }
    }
    Ok(format!("{} {tenant} {}\n", hex::encode(Sha256::digest(token)), terminal.unwrap_or("*")))
}

/// Loads the file again whenever it has changed, for ever. One that cannot be used is said, and the last that could stays in force.
pub(crate) async fn follow(path: &Path, seen: Option<Version>, credentials: watch::Sender<Credentials>) -> ! {
    let file = path.to_path_buf();
    let load = move || Credentials::load(&file);
    let told = |loaded: Result<Credentials, String>| match loaded {
        Ok(loaded) => {
            tracing::info!(tokens = loaded.count(), "the tokens were loaded again");
            counts::tokens(loaded.count());
            counts::token_load("ok");
            credentials.send_replace(loaded);
        }
        Err(reason) => {
            tracing::error!(reason, "the tokens stay as they were");
            counts::token_load("failed");
        }
    };
    reload::follow(|| reload::version([path]), seen, load, told).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Credentials, CredentialsError> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tokens");
        std::fs::write(&path, text).unwrap();
        Credentials::load(&path)
    }

    #[test]
    fn a_token_stands_for_its_tenant_and_terminal() {
        let text =
            format!("# ours\n\n{}{} # all\n", line("one", "acme", Some("T-1")).unwrap(), line("all", "acme", None).unwrap().trim_end());
        let credentials = load(&text).unwrap();
        let one = credentials.identify("one").unwrap();
        assert_eq!((one.identity.tenant.as_ref(), one.identity.terminal.as_deref()), ("acme", Some("T-1")));
        assert_eq!(credentials.identify("all").unwrap().identity.terminal, None);
        assert!(credentials.identify("other").is_none());
        assert_eq!(credentials.count(), 2);

        assert!(credentials.still_grant(&one));
        assert!(!load(&line("all", "acme", None).unwrap()).unwrap().still_grant(&one));
        assert!(!load(&line("one", "acme", Some("T-2")).unwrap()).unwrap().still_grant(&one));
    }

    /// Known from elsewhere: `printf secret | sha256sum`.
    #[test]
    fn the_hash_is_that_of_other_tools() {
        assert_eq!(line("secret", "acme", None).unwrap(), "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b acme *\n");
    }

    #[test]
    fn a_line_that_is_none_is_named_but_not_shown() {
        let good = line("one", "acme", Some("T-1")).unwrap();
        for (text, said) in [
            ("hunter2 acme T-1\n".to_owned(), "line 1 does not begin with the 64 hexadecimal digits"),
            (format!("{good}hunter2\n"), "line 2 is not a SHA-256, a tenant and a terminal"),
            (good.replace("T-1", "hunter2/"), "line 1 has a terminal that is not 1 to 32 of"),
            (good.replace("acme", &"hunter2".repeat(5)), "line 1 has a tenant that is not"),
            (format!("{good}{good}"), "line 2 has a token that an earlier line has too"),
        ] {
            let message = load(&text).unwrap_err().to_string();
            assert!(message.contains(said) && message.contains("gateway.token_file") && !message.contains("hunter2"), "{message}");
        }
        assert!(load("# nobody\n").unwrap_err().to_string().contains("no tokens"));
        for tenant in ["", "no tenant", &"x".repeat(33)] {
            assert!(line("one", tenant, None).unwrap_err().contains(&format!("`{tenant}` cannot be a tenant")));
        }
        assert!(line("one", "acme", Some("")).unwrap_err().contains("terminal"));
    }
}
