//! The calendar of the fleets that are watched, in a file that is read again when it changes.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use faultline_detect::{Calendar, CalendarError};
use faultline_runtime::reload::{self, Version};
use tokio::sync::watch;

/// Why a file is no calendar.
#[derive(Debug, thiserror::Error)]
pub enum CalendarFileError {
    /// It cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is not one.
    #[error("{}", path.display())]
    Calendar {
        /// Which one.
        path: PathBuf,
        /// What is wrong with it.
        source: CalendarError,
    },
}

/// A calendar that is in force as long as its file says so.
#[derive(Debug)]
pub(crate) struct CalendarFile {
    path: PathBuf,
    /// What the file was when it was read.
    seen: Option<Version>,
    in_force: watch::Sender<Arc<Calendar>>,
}

impl CalendarFile {
    /// Reads it; an empty path is one with nothing in it.
    pub(crate) fn read(path: &Path) -> Result<CalendarFile, CalendarFileError> {
        Ok(CalendarFile { path: path.into(), seen: version(path), in_force: watch::Sender::new(Arc::new(calendar(path)?)) })
    }

    pub(crate) fn in_force(&self) -> Arc<Calendar> {
        Arc::clone(&self.in_force.borrow())
    }

    /// Reads it again whenever it has changed, for ever. One that is wrong is refused, and the calendar stays as it was.
    pub(crate) async fn follow(&self) -> ! {
        let place = self.path.clone();
        let load = move || calendar(&place);
        let loaded = |loaded: Result<Calendar, String>| match loaded {
            Ok(calendar) => {
                tracing::info!(path = %self.path.display(), "the calendar was read again");
                self.in_force.send_replace(Arc::new(calendar));
            }
            Err(reason) => tracing::error!(reason, "the calendar stays as it was"),
        };
        reload::follow(|| version(&self.path), self.seen.clone(), load, loaded).await
    }
}

/// The calendar of a file; an empty path is one with nothing in it.
pub(crate) fn calendar(path: &Path) -> Result<Calendar, CalendarFileError> {
    if path.as_os_str().is_empty() {
        return Ok(Calendar::default());
    }
    let text = std::fs::read_to_string(path).map_err(|source| CalendarFileError::Read { path: path.into(), source })?;
    Calendar::read(&text).map_err(|source| CalendarFileError::Calendar { path: path.into(), source })
}

fn version(path: &Path) -> Option<Version> {
    if path.as_os_str().is_empty() { None } else { reload::version([path]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_changes_is_in_force_and_what_is_wrong_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("calendar.toml");
        let maintained = "[[maintenance]]\nslice = \"issuer=icbc\"\nfrom = \"2026-10-11T02:00:00Z\"\nuntil = \"2026-10-11T04:00:00Z\"\n";
        std::fs::write(&path, "time_zone = \"Asia/Shanghai\"\n").unwrap();
        let file = CalendarFile::read(&path).unwrap();
        let changing = async {
            let mut in_force = file.in_force.subscribe();
            std::fs::write(&path, maintained).unwrap();
            in_force.changed().await.unwrap();
            assert_eq!(file.in_force().announced("acme").len(), 1);
            std::fs::write(&path, maintained.replace("issuer", "weather")).unwrap();
            tokio::time::sleep(std::time::Duration::from_secs(10)).await;
            assert_eq!(file.in_force().announced("acme").len(), 1);
        };
        tokio::select! {
            () = changing => {}
            never = file.follow() => never,
        }
        let wrong = CalendarFile::read(&path).unwrap_err();
        assert!(faultline_runtime::error::with_causes(&wrong).contains("maintenance 1: slice = \"weather=icbc\""), "{wrong}");
        assert!(CalendarFile::read(&directory.path().join("none")).unwrap_err().to_string().starts_with("cannot read"));
    }
}
