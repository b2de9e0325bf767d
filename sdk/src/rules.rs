//! The rules by which a terminal gives verdicts: those that came with this library, until there are newer ones that are signed.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use faultline_bundle::{Bundle, BundleError, PublicKey};
use faultline_proto::outcome::v1::Outcome;
use faultline_proto::terminal::v1::{RuleBundle, RuleRequest};
use faultline_proto::verdict::v1::Evidence;
use faultline_verdict::{Cause, LocalizedText, MerchantCause, Retry, Rules, RulesError};
use prost::Message;
use tokio::sync::watch;

/// Keys that the gateway is told of.
const MAX_KEYS: usize = 4;

/// Whose fault it is that an attempt ended as it did, as far as its outcome tells, and what is to be done.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Verdict {
    /// Whose fault it is.
    pub cause: Cause,
    /// Why, as a stable identifier: `insufficient_funds`. docs/reasons.md lists them.
    pub reason: String,
    /// What the merchant is told that it was.
    pub merchant_cause: MerchantCause,
    /// How likely the cause is, in percent.
    pub confidence: u8,
    /// What the outcome shows, what decides first.
    pub evidence: Vec<Evidence>,
    /// Whether trying again can help.
    pub retry: Retry,
    /// What it means.
    pub meaning: LocalizedText,
    /// What the cashier should do.
    pub cashier: LocalizedText,
    /// What the service desk should do.
    pub service_desk: LocalizedText,
    /// What keeps it from happening again. Both texts are empty where the rules have none.
    pub prevention: LocalizedText,
    /// Version and checksum of the rule set that judged: `unionpay-pos/2026-11-29+3f2a91c04b77`.
    pub rule_set: String,
}

impl Verdict {
    fn of(outcome: &Outcome, rules: &Rules) -> Verdict {
        let verdict = rules.verdict(outcome);
        let words = rules.in_words(&verdict, outcome);
        let reason = verdict.reason;
        Verdict {
            cause: reason.cause,
            reason: words.reason,
            merchant_cause: reason.merchant_cause,
            confidence: verdict.confidence,
            evidence: words.evidence,
            retry: reason.retry,
            meaning: words.meaning.unwrap_or_default(),
            cashier: words.cashier.unwrap_or_default(),
            service_desk: words.service_desk.unwrap_or_default(),
            prevention: words.prevention.unwrap_or_default(),
            rule_set: words.rule_set,
        }
    }
}

/// Rules, and what newer ones have to be signed with. Clones share them: terminals of one process are given the same.
#[derive(Clone)]
pub struct TerminalRules(Arc<Shared>);

struct Shared {
    keys: Vec<PublicKey>,
    in_force: watch::Sender<Arc<InForce>>,
    /// One bundle is looked at at a time, so that an older one cannot come after a newer.
    looking: Mutex<()>,
    refused: Mutex<Refused>,
}

/// What judges now.
pub(crate) struct InForce {
    pub(crate) rules: Rules,
    /// Where they came from; nothing: with the library.
    bundle: Option<Bundle>,
}

impl InForce {
    pub(crate) fn verdict(&self, outcome: &Outcome) -> Verdict {
        Verdict::of(outcome, &self.rules)
    }
}

/// What was refused last.
#[derive(Default)]
struct Refused {
    /// Empty where what came last was taken.
    why: String,
    /// The newest that was signed and whose rules this library cannot use: it is not asked for again.
    unusable: Option<Bundle>,
}

impl TerminalRules {
    /// Those that came with the library, for good.
    ///
    /// # Errors
    /// Never, in a library that passed its tests.
    pub fn built_in() -> Result<TerminalRules, RulesError> {
        TerminalRules::signed_by([])
    }

    /// Those that came with the library, until the gateway, or [`TerminalRules::take`], has others that one of these keys has signed. There is more than one while a key is
    /// being changed; no more than four count.
    ///
    /// # Errors
    /// Never, in a library that passed its tests.
    pub fn signed_by(keys: impl IntoIterator<Item = PublicKey>) -> Result<TerminalRules, RulesError> {
        let in_force = InForce { rules: Rules::built_in()?, bundle: None };
        Ok(TerminalRules(Arc::new(Shared {
            keys: keys.into_iter().take(MAX_KEYS).collect(),
            in_force: watch::Sender::new(Arc::new(in_force)),
            looking: Mutex::default(),
            refused: Mutex::default(),
        })))
    }

    /// Takes what [`TerminalRules::bundle`] gave to an earlier run. Says whether the rules are others now.
    ///
    /// # Errors
    /// When it was not signed with one of the keys, is older than what is there, or cannot be used. Then the rules stay as they are.
    pub fn take(&self, bundle: &[u8]) -> Result<bool, BundleError> {
        self.replace(|keys| Bundle::decode(bundle, keys))
    }

    /// The same for one that the gateway sent.
    pub(crate) fn take_message(&self, bundle: RuleBundle) -> Result<bool, BundleError> {
        self.replace(|keys| Bundle::open(bundle, keys))
    }

    fn replace(&self, open: impl FnOnce(&[PublicKey]) -> Result<Bundle, BundleError>) -> Result<bool, BundleError> {
        let _looking = self.0.looking.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = open(&self.0.keys).and_then(|bundle| self.put_in_force(bundle));
        self.refused().why = taken.as_ref().err().map(ToString::to_string).unwrap_or_default();
        taken
    }

    fn put_in_force(&self, bundle: Bundle) -> Result<bool, BundleError> {
        if let Some(before) = &self.in_force().bundle
            && !bundle.succeeds(before)?
        {
            return Ok(false);
        }
        let rules = bundle.rules().inspect_err(|_| self.refused().unusable = Some(bundle.clone()))?;
        self.0.in_force.send_replace(Arc::new(InForce { rules, bundle: Some(bundle) }));
        Ok(true)
    }

    /// The bundle that the rules are from, for an application that keeps it for its next run: at most 132 KiB. Nothing where they came with the library.
    #[must_use]
    pub fn bundle(&self) -> Option<Bytes> {
        self.in_force().bundle.as_ref().map(|bundle| bundle.message().encode_to_vec().into())
    }

    /// Identifies all sets together: `rules+3f2a91c04b77`, as `faultline rules list` says it of the same files.
    #[must_use]
    pub fn version(&self) -> String {
        self.in_force().rules.version().into()
    }

    /// Why what was offered last was not taken; empty where it was.
    #[must_use]
    pub fn problem(&self) -> String {
        self.refused().why.clone()
    }

    /// Waits until the rules are of another version than this one.
    pub async fn until_other_than(&self, version: &str) {
        // The sender lives as long as `self`.
        let _ = self.subscribe().wait_for(|in_force| in_force.rules.version() != version).await;
    }

    /// The verdict on an outcome.
    #[must_use]
    pub fn verdict(&self, outcome: &Outcome) -> Verdict {
        self.in_force().verdict(outcome)
    }

    pub(crate) fn in_force(&self) -> Arc<InForce> {
        Arc::clone(&self.0.in_force.borrow())
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<Arc<InForce>> {
        self.0.in_force.subscribe()
    }

    /// What the gateway is asked for; nothing where no signature could be checked.
    pub(crate) fn request(&self) -> Option<RuleRequest> {
        let unusable = self.refused().unusable.as_ref().map(Bundle::issue_time);
        let in_force = self.in_force().bundle.as_ref().map(Bundle::issue_time);
        let issued_after = [unusable, in_force].into_iter().flatten().max_by_key(|time| time.seconds);
        let key_ids = self.0.keys.iter().map(PublicKey::id).collect();
        (!self.0.keys.is_empty()).then_some(RuleRequest { key_ids, issued_after })
    }

    fn refused(&self) -> MutexGuard<'_, Refused> {
        self.0.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for TerminalRules {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("TerminalRules").field("version", &self.version()).field("keys", &self.0.keys).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use faultline_bundle::SigningKey;
    use faultline_proto::outcome::v1::Stage;

    use super::*;

    fn key() -> SigningKey {
        SigningKey::from_pem(&SigningKey::generate().unwrap()).unwrap()
    }

    /// Rules that have another reason for code 40.
    fn bundle(key: &SigningKey, issue_s: i64, reason: &str) -> Vec<u8> {
        let text = format!(
            "version = 'unionpay-pos/own'\ninherits = 'unionpay-pos'\n[[response_code]]\ncode = '40'\nreason = '{reason}'\nsource = 'ours'\n"
        );
        Bundle::pack(&[("ours.toml", text.as_str())], issue_s, key).unwrap().message().encode_to_vec()
    }

    fn reason(rules: &TerminalRules) -> String {
        let outcome = Outcome { response_code: "40".into(), stage: Stage::HostDecision.into(), ..Outcome::default() };
        rules.verdict(&outcome).reason
    }

    #[test]
    fn a_verdict_is_weighed_and_told_as_the_classifier_does() {
        let rules = Rules::built_in().unwrap();
        let waited = Outcome { stage: Stage::Wait.into(), signal_dbm: Some(-113), ..Outcome::default() };
        let (verdict, told) = (rules.verdict(&waited), TerminalRules::built_in().unwrap().verdict(&waited));
        let words = rules.in_words(&verdict, &waited);
        assert_eq!((told.cause, told.confidence, &told.evidence), (verdict.reason.cause, verdict.confidence, &words.evidence));
        assert_eq!((Some(told.prevention), Some(told.cashier), told.rule_set), (words.prevention, words.cashier, words.rule_set));
        assert!(told.evidence.iter().any(|evidence| evidence.fact == "weak_signal"));
        assert_ne!(verdict.confidence, verdict.reason.confidence, "the signal makes it more likely");
    }

    #[test]
    fn newer_rules_that_are_signed_take_the_place_of_those_in_force() {
        let key = key();
        let rules = TerminalRules::signed_by([key.public()]).unwrap();
        let (version, other) = (rules.version(), rules.clone());
        assert_eq!((reason(&rules).as_str(), rules.bundle()), ("function_not_enabled", None));
        let first = bundle(&key, 100, "issuer_refused");
        assert!(rules.take(&first).unwrap());
        assert_eq!((reason(&rules).as_str(), reason(&other).as_str()), ("issuer_refused", "issuer_refused"));
        assert!(rules.version() != version && rules.bundle().unwrap() == first);
        assert!(!rules.take(&first).unwrap(), "the same");
        assert!(rules.take(&bundle(&key, 101, "issuer_error")).unwrap());
        assert_eq!((reason(&other).as_str(), rules.problem().as_str()), ("issuer_error", ""));
    }

    #[test]
    fn what_is_not_signed_or_older_is_refused_and_the_rules_stay() {
        let (ours, other) = (key(), key());
        let rules = TerminalRules::signed_by([ours.public()]).unwrap();
        rules.take(&bundle(&ours, 100, "issuer_refused")).unwrap();
        let in_force = rules.bundle();
        let mut tampered = RuleBundle::decode(bundle(&ours, 200, "issuer_error").as_slice()).unwrap();
        let middle = tampered.contents.len() / 2;
        tampered.contents = tampered.contents.iter().enumerate().map(|(at, byte)| byte ^ u8::from(at == middle)).collect();
        for (offered, why) in [
            (bundle(&ours, 99, "issuer_error"), "it was issued 1970-01-01T00:01:39Z, and what is in force 1970-01-01T00:01:40Z"),
            (bundle(&ours, 100, "issuer_error"), "it has to be newer"),
            (bundle(&other, 200, "issuer_error"), "which is not known here"),
            (tampered.encode_to_vec(), "its signature is wrong"),
            (vec![0xFF; 10], "it is no bundle of rules"),
        ] {
            let error = rules.take(&offered).unwrap_err().to_string();
            assert!(error.contains(why) && rules.problem() == error, "{error}");
            assert_eq!((reason(&rules).as_str(), rules.bundle()), ("issuer_refused", in_force.clone()));
        }
        let without_a_key = TerminalRules::built_in().unwrap();
        assert!(without_a_key.take(&bundle(&ours, 100, "issuer_error")).is_err());
        assert_eq!((without_a_key.request(), reason(&without_a_key).as_str()), (None, "function_not_enabled"));
    }

    #[test]
    fn what_is_asked_for_is_newer_than_what_is_there() {
        let key = key();
        let rules = TerminalRules::signed_by([key.public()]).unwrap();
        assert_eq!(rules.request(), Some(RuleRequest { key_ids: vec![key.public().id()], issued_after: None }));
        rules.take(&bundle(&key, 100, "issuer_refused")).unwrap();
        assert_eq!(rules.request().unwrap().issued_after.unwrap().seconds, 100);
    }

    #[tokio::test]
    async fn an_application_is_told_of_other_rules() {
        let key = key();
        let rules = TerminalRules::signed_by([key.public()]).unwrap();
        let version = rules.version();
        let told = tokio::spawn({
            let (rules, version) = (rules.clone(), version.clone());
            async move { rules.until_other_than(&version).await }
        });
        rules.take(&bundle(&key, 100, "issuer_refused")).unwrap();
        told.await.unwrap();
        assert_ne!(rules.version(), version);
    }
}
