//! Files that are read again when they change, while a process runs.

use std::error::Error;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::sleep;

use crate::error::with_causes;

/// How often files are looked at.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What changes when one of several files does: name, inode, size, and when it changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version(Vec<(PathBuf, u64, u64, (i64, i64))>);

/// The version of files; none where one of them is not there.
pub fn version<'a>(files: impl IntoIterator<Item = &'a Path>) -> Option<Version> {
    let of = |file: Metadata| (file.ino(), file.size(), (file.ctime(), file.ctime_nsec()));
    let known = |path: &Path| {
        let (inode, size, changed) = std::fs::metadata(path).ok().map(of)?;
        Some((path.to_path_buf(), inode, size, changed))
    };
    files.into_iter().map(known).collect::<Option<_>>().map(Version)
}

/// Loads again whenever files have another version than the one that was `seen`, and then stayed as they are for a moment, for ever. `told` gets what was loaded, or why it
/// could not be; that is told once, until it changes. What cannot be read now may be readable soon; what is wrong stays wrong until it changes.
pub async fn follow<T: Send + 'static, E: Error + Send + 'static>(
    version: impl Fn() -> Option<Version>,
    mut seen: Option<Version>,
    load: impl Fn() -> Result<T, E> + Clone + Send + 'static,
    mut told: impl FnMut(Result<T, String>),
) -> ! {
    let mut before = seen.clone();
    let mut said = None;
    loop {
        sleep(LOOK_AGAIN).await;
        let now = version();
        // One that changed since the last look may be half written.
        if now == seen || std::mem::replace(&mut before, now.clone()) != now {
            continue;
        }
        let (wrong, is_unreadable) = match tokio::task::spawn_blocking(load.clone()).await {
            Ok(Ok(loaded)) => {
                told(Ok(loaded));
                (seen, said) = (now, None);
                continue;
            }
            Ok(Err(error)) => (with_causes(&error), is_unreadable(&error)),
            Err(error) => (error.to_string(), false),
        };
        if said.as_ref() != Some(&wrong) {
            told(Err(wrong.clone()));
            said = Some(wrong);
        }
        if !is_unreadable {
            seen = now;
        }
    }
}

/// Whether something failed because a file could not be read.
fn is_unreadable(error: &(dyn Error + 'static)) -> bool {
    std::iter::successors(Some(error), |&error| error.source()).any(|error| error.is::<io::Error>())
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use tokio::time::timeout;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Refused {
        #[error("cannot read it")]
        Read(#[from] io::Error),
        #[error("`{0}` is no number")]
        Number(String),
    }

    /// What is told within some looks at a file.
    struct Followed {
        path: PathBuf,
        told: mpsc::Receiver<Result<u32, String>>,
    }

    impl Followed {
        fn begin(path: PathBuf) -> Followed {
            let (sender, told) = mpsc::channel();
            let (watched, file) = (path.clone(), path.clone());
            let load = move || {
                let text = std::fs::read_to_string(&file)?;
                text.trim().parse().map_err(|_| Refused::Number(text))
            };
            tokio::spawn(async move {
                let of = || version([watched.as_path()]);
                let seen = of();
                follow(of, seen, load, |loaded| drop(sender.send(loaded))).await
            });
            Followed { path, told }
        }

        async fn after(&self, change: impl FnOnce(&Path)) -> Vec<Result<u32, String>> {
            // It has begun, and has looked.
            let _ = timeout(2 * LOOK_AGAIN, std::future::pending::<()>()).await;
            change(&self.path);
            let _ = timeout(5 * LOOK_AGAIN, std::future::pending::<()>()).await;
            self.told.try_iter().collect()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_changes_is_loaded_again_and_what_is_wrong_is_told_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("number");
        std::fs::write(&path, "1").unwrap();
        let followed = Followed::begin(path);
        let write = |text: &'static str| move |path: &Path| std::fs::write(path, text).unwrap();
        assert_eq!(followed.after(|_| {}).await, []);
        assert_eq!(followed.after(write("22")).await, [Ok(22)]);
        assert_eq!(followed.after(write("three")).await, [Err("`three` is no number".into())]);
        assert_eq!(followed.after(|_| {}).await, []);
        assert_eq!(followed.after(write("4444")).await, [Ok(4444)]);
        let removed = followed.after(|path| std::fs::remove_file(path).unwrap()).await;
        assert!(matches!(&removed[..], [Err(reason)] if reason.starts_with("cannot read it: ")), "{removed:?}");
        assert_eq!(followed.after(write("55555")).await, [Ok(55555)]);
    }
}
