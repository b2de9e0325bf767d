//! Rules for terminals: a bundle that was signed elsewhere, given to each terminal that can check it and has none that is as new.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use faultline_bundle::{Bundle, BundleError, MAX_BYTES, PublicKey};
use faultline_proto::terminal::v1::{RuleBundle, RuleRequest};
use faultline_runtime::reload::{self, Version};
use prost::Message;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::counts;

/// Most bytes of a request for rules: four keys and a time are less.
const MAX_REQUEST_BYTES: usize = 256;

/// Why a file is not given to terminals.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RulesBundleError {
    /// It cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No terminal would take it.
    #[error("{} is not given to terminals", path.display())]
    Bundle {
        /// The file.
        path: PathBuf,
        /// Why.
        source: BundleError,
    },
}

/// The bundle in a file, and the version of its rules. It is looked at as terminals do, so none is sent what it refuses.
pub(crate) fn load(path: &Path, key: PublicKey) -> Result<(Bundle, String), RulesBundleError> {
    let unreadable = |source| RulesBundleError::Read { path: path.into(), source };
    let refused = |source| RulesBundleError::Bundle { path: path.into(), source };
    let mut bytes = Vec::new();
    let most = u64::try_from(MAX_BYTES).unwrap_or(u64::MAX) + 1;
    File::open(path).and_then(|file| file.take(most).read_to_end(&mut bytes)).map_err(unreadable)?;
    let bundle = Bundle::decode(&bytes, &[key]).map_err(refused)?;
    let version = bundle.rules().map_err(refused)?.version().to_owned();
    Ok((bundle, version))
}

/// Loads the file again whenever it has changed, for ever. A bundle that terminals would refuse is said, and the one in force stays.
pub(crate) async fn follow((path, key): (&Path, PublicKey), seen: Option<Version>, bundles: watch::Sender<Option<Arc<Bundle>>>) -> ! {
    let file = path.to_path_buf();
    let load = move || load(&file, key);
    let told = |loaded: Result<(Bundle, String), String>| {
        let refused = |reason: String| {
            tracing::error!(reason, "the rules for terminals stay as they were");
            counts::rules_load("failed");
        };
        let (bundle, version) = match loaded {
            Ok(loaded) => loaded,
            Err(reason) => return refused(reason),
        };
        let in_force = bundles.borrow().clone();
        if let Some(Err(error)) = in_force.map(|in_force| bundle.succeeds(&in_force)) {
            return refused(format!("{}: {error}", path.display()));
        }
        tracing::info!(rules = version, issued = %bundle.issue_time(), "terminals are given these rules");
        counts::rules_load("ok");
        bundles.send_replace(Some(Arc::new(bundle)));
    };
    reload::follow(|| reload::version([path]), seen, load, told).await
}

/// What the terminal of one call is given.
#[derive(Clone)]
pub(crate) struct Offer {
    bundles: watch::Receiver<Option<Arc<Bundle>>>,
    /// Over how long terminals are given rules that are new: all at once, they would fill memory and network.
    within: Duration,
    wanted: Option<Wanted>,
    due: Option<Instant>,
}

#[derive(Clone)]
struct Wanted {
    key_ids: Vec<String>,
    issued_after_s: i64,
}

impl Offer {
    pub(crate) fn new(bundles: watch::Receiver<Option<Arc<Bundle>>>, within: Duration) -> Offer {
        Offer { bundles, within, wanted: None, due: None }
    }

    /// Takes a request. One that cannot be read is passed over: verdicts are not worth an event. What was given in this call is not given again.
    pub(crate) fn ask(&mut self, request: &Bytes) {
        let Some(request) = (request.len() <= MAX_REQUEST_BYTES).then(|| RuleRequest::decode(request.clone()).ok()).flatten() else {
            return;
        };
        let before = self.wanted.as_ref().map_or(i64::MIN, |wanted| wanted.issued_after_s);
        let issued_after_s = request.issued_after.map_or(i64::MIN, |time| time.seconds).max(before);
        self.wanted = Some(Wanted { key_ids: request.key_ids, issued_after_s });
        self.bundles.mark_unchanged();
        self.due = Some(Instant::now());
    }

    /// A bundle that was asked for, when there is one.
    pub(crate) fn take(&mut self) -> Option<RuleBundle> {
        let wanted = self.wanted.as_mut()?;
        let bundle = self.bundles.borrow_and_update().clone()?;
        let message = bundle.message();
        if bundle.issue_time().seconds <= wanted.issued_after_s || !wanted.key_ids.contains(&message.key_id) {
            return None;
        }
        wanted.issued_after_s = bundle.issue_time().seconds;
        counts::rules_given();
        Some(message.clone())
    }

    /// Waits for it. May be dropped and called again.
    pub(crate) async fn next(&mut self) -> RuleBundle {
        loop {
            let due = self.due;
            tokio::select! {
                Ok(()) = self.bundles.changed() => self.due = Some(Instant::now() + self.within.mul_f64(fastrand::f64())),
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    self.due = None;
                    if let Some(bundle) = self.take() {
                        return bundle;
                    }
                }
                else => std::future::pending().await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use faultline_bundle::SigningKey;
    use faultline_runtime::error::with_causes;
    use prost_types::Timestamp;
    use tokio::time::timeout;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn key() -> SigningKey {
        SigningKey::from_pem(&SigningKey::generate().unwrap()).unwrap()
    }

    fn bundle(key: &SigningKey, issue_s: i64) -> Bundle {
        Bundle::pack::<&str>(&[], issue_s, key).unwrap()
    }

    fn request(key: &SigningKey, issued_after_s: i64) -> Bytes {
        let issued_after = Some(Timestamp { seconds: issued_after_s, nanos: 0 });
        RuleRequest { key_ids: vec![key.public().id()], issued_after }.encode_to_vec().into()
    }

    #[test]
    fn a_bundle_is_given_once_to_whoever_can_check_it_and_has_an_older_one() {
        let (ours, other) = (key(), key());
        let (bundles, receiver) = watch::channel(None);
        let offer = || Offer::new(receiver.clone(), MINUTE);
        let given = |offer: &mut Offer| offer.take().map(|bundle| bundle.key_id);
        let mut early = offer();
        early.ask(&request(&ours, 0));
        assert_eq!(given(&mut early), None);
        bundles.send_replace(Some(Arc::new(bundle(&ours, 100))));
        assert_eq!(given(&mut offer()), None, "nobody asked");
        for (key, issued_after, id) in [(&ours, 99, Some(ours.public().id())), (&ours, 100, None), (&other, 0, None)] {
            let mut offer = offer();
            offer.ask(&request(key, issued_after));
            assert_eq!(given(&mut offer), id);
            offer.ask(&request(key, issued_after));
            assert_eq!(given(&mut offer), None, "again");
        }
        for unreadable in [vec![0xFF], vec![0; MAX_REQUEST_BYTES + 1]] {
            let mut offer = offer();
            offer.ask(&unreadable.into());
            assert_eq!(given(&mut offer), None);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_is_answered_at_once_and_who_waits_within_a_while() {
        let key = key();
        let (bundles, receiver) = watch::channel(Some(Arc::new(bundle(&key, 100))));
        let mut offers: Vec<Offer> = (0..50).map(|_| Offer::new(receiver.clone(), MINUTE)).collect();
        let begin = Instant::now();
        for offer in &mut offers {
            offer.ask(&request(&key, 0));
            offer.next().await;
        }
        assert!(begin.elapsed() < Duration::from_secs(1));
        bundles.send_replace(Some(Arc::new(bundle(&key, 101))));
        let mut waited = Vec::new();
        for offer in &mut offers {
            let begin = Instant::now();
            timeout(2 * MINUTE, offer.next()).await.unwrap();
            waited.push(begin.elapsed());
            assert!(timeout(2 * MINUTE, offer.next()).await.is_err(), "it has it");
        }
        assert!(
            waited.iter().all(|waited| *waited <= MINUTE + Duration::from_millis(1)) && waited.iter().any(|waited| *waited > MINUTE / 4),
            "{waited:?}"
        );
    }

    #[test]
    fn a_file_that_terminals_would_refuse_is_named_with_the_reason() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("rules.bundle");
        let (ours, other) = (key(), key());
        let refused = |key: &SigningKey| with_causes(&load(&path, key.public()).unwrap_err());
        assert!(refused(&ours).contains("cannot read"));
        let bytes = bundle(&ours, 100).message().encode_to_vec();
        std::fs::write(&path, &bytes).unwrap();
        let (loaded, version) = load(&path, ours.public()).unwrap();
        assert!(loaded.message().encode_to_vec() == bytes && version.starts_with("rules+"));
        assert!(refused(&other).contains("rules.bundle is not given to terminals: it is signed with key"), "{}", refused(&other));
        std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
        assert!(refused(&ours).contains("it is no bundle of rules"), "{}", refused(&ours));
        std::fs::write(&path, vec![0; MAX_BYTES + 1000]).unwrap();
        assert!(refused(&ours).contains("at most"), "{}", refused(&ours));
    }
}
