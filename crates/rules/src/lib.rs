//! The files that rules are in, beside those that come with the program; they are read again when they change.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use faultline_runtime::reload::{self, Version};
use faultline_verdict::{Rules, RulesError};
use tokio::sync::watch;

/// Why files are no rules.
#[derive(Debug, thiserror::Error)]
pub enum RuleFilesError {
    /// A file or directory cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A directory has nothing in it that could be rules.
    #[error("no file in {} ends with .toml", path.display())]
    Empty {
        /// The directory.
        path: PathBuf,
    },
    /// A file is not of the format, or contradicts another.
    #[error(transparent)]
    Rules(#[from] RulesError),
}

/// Rules that are in force as long as their files say so.
#[derive(Debug)]
pub struct RuleFiles {
    path: PathBuf,
    /// What the files were when they were read.
    seen: Option<Version>,
    in_force: watch::Sender<Arc<Rules>>,
}

impl RuleFiles {
    /// Reads the rules of a file, or of every `*.toml` in a directory, beside those that come with the program; an empty path adds nothing.
    ///
    /// # Errors
    /// When something cannot be read, or is no rules.
    pub fn read(path: &Path) -> Result<RuleFiles, RuleFilesError> {
        let seen = version(path);
        Ok(RuleFiles { path: path.into(), seen, in_force: watch::Sender::new(Arc::new(rules(path)?)) })
    }

    /// The rules that are in force now. Whoever began something with them ends it with them.
    #[must_use]
    pub fn in_force(&self) -> Arc<Rules> {
        Arc::clone(&self.in_force.borrow())
    }

    /// The rules that are in force whenever somebody looks.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Arc<Rules>> {
        self.in_force.subscribe()
    }

    /// Reads the rules again whenever a file has changed, come or gone, for ever. `told` gets the rules that are in force from then on, or hears that what is there now cannot
    /// be used; then those that were in force stay.
    pub async fn follow(&self, told: impl Fn(Option<&Rules>)) -> ! {
        let place = self.path.clone();
        let load = move || rules(&place);
        let loaded = |loaded: Result<Rules, String>| match loaded {
            Ok(rules) => {
                tracing::info!(rules = rules.version(), "the rules were loaded again");
                told(Some(&rules));
                self.in_force.send_replace(Arc::new(rules));
            }
            Err(reason) => {
                tracing::error!(reason, "the rules stay as they were");
                told(None);
            }
        };
        reload::follow(|| version(&self.path), self.seen.clone(), load, loaded).await
    }
}

/// The rules that come with the program, and those of a file, or of every `*.toml` in a directory; an empty path adds nothing.
///
/// # Errors
/// When something cannot be read, or is no rules.
pub fn rules(path: &Path) -> Result<Rules, RuleFilesError> {
    if path.as_os_str().is_empty() { Ok(Rules::built_in()?) } else { Ok(Rules::with(&rule_texts(path)?)?) }
}

/// The files at a path, in the order of their names: what to call each, and its text.
///
/// # Errors
/// When something cannot be read.
pub fn rule_texts(path: &Path) -> Result<Vec<(String, String)>, RuleFilesError> {
    let text = |path: &PathBuf| {
        let unreadable = |source| RuleFilesError::Read { path: path.clone(), source };
        std::fs::read_to_string(path).map(|text| (path.display().to_string(), text)).map_err(unreadable)
    };
    files(path)?.iter().map(text).collect()
}

/// The file, or those of the directory that end with `.toml`, in the order of their names.
fn files(path: &Path) -> Result<Vec<PathBuf>, RuleFilesError> {
    let unreadable = |source| RuleFilesError::Read { path: path.into(), source };
    if !path.is_dir() {
        return Ok(vec![path.into()]);
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(unreadable)? {
        let file = entry.map_err(unreadable)?.path();
        if file.extension().is_some_and(|extension| extension == "toml") {
            files.push(file);
        }
    }
    if files.is_empty() {
        return Err(RuleFilesError::Empty { path: path.into() });
    }
    files.sort();
    Ok(files)
}

/// The version of the files; none where there are none.
fn version(path: &Path) -> Option<Version> {
    if path.as_os_str().is_empty() {
        return None;
    }
    reload::version(files(path).ok()?.iter().map(PathBuf::as_path))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OVERRIDE: &str = "version = \"ours/1\"\ninherits = \"unionpay-pos\"\nacquirer = \"48020000\"\n\n\
                            [[response_code]]\ncode = \"40\"\nreason = \"issuer_refused\"\nsource = \"our acquirer\"\n";

    #[tokio::test(start_paused = true)]
    async fn what_changes_is_in_force_and_what_is_wrong_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("ours.toml");
        std::fs::write(&file, OVERRIDE).unwrap();
        let files = RuleFiles::read(&file).unwrap();
        let first = files.in_force();
        let (told, mut heard) = tokio::sync::mpsc::channel(4);
        let watching = files.follow(|rules| told.try_send(rules.map(|rules| rules.version().to_owned())).unwrap());
        let changing = async {
            std::fs::write(&file, OVERRIDE.replace("ours/1", "ours/22")).unwrap();
            let second = heard.recv().await.unwrap();
            assert_eq!(second, Some(files.in_force().version().to_owned()));
            assert_ne!(files.in_force().version(), first.version());
            std::fs::write(&file, OVERRIDE.replace("issuer_refused", "nobody_knows_it")).unwrap();
            assert_eq!(heard.recv().await.unwrap(), None);
            assert_eq!(second, Some(files.subscribe().borrow().version().to_owned()));
        };
        tokio::select! {
            () = changing => {}
            never = watching => never,
        }
    }

    #[test]
    fn a_file_a_directory_and_nothing_are_rules() {
        let directory = tempfile::tempdir().unwrap();
        let missing = |path: &Path| rules(path).unwrap_err().to_string();
        assert!(missing(directory.path()).contains("ends with .toml"));
        assert!(missing(&directory.path().join("none")).contains("cannot read"));
        let file = directory.path().join("ours.toml");
        std::fs::write(&file, OVERRIDE).unwrap();
        std::fs::write(directory.path().join("notes.txt"), "not rules").unwrap();
        let built_in = rules(Path::new("")).unwrap();
        for path in [directory.path(), &file] {
            let with = rules(path).unwrap();
            assert_eq!(with.sets().count(), built_in.sets().count() + 1);
            assert_ne!(with.version(), built_in.version());
        }
        std::fs::write(&file, OVERRIDE.replace("issuer_refused", "issuer_refuses")).unwrap();
        let message = missing(directory.path());
        assert!(message.contains("ours.toml:5: response code `40` names reason `issuer_refuses`"), "{message}");
    }
}
