//! Settings of the alerter.

use std::path::PathBuf;
use std::time::Duration;

use faultline_detect::Settings;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use url::Url;

/// Settings of the alerter.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AlerterConfig {
    /// How long after the end of ten seconds their outcomes may take to reach Kafka. What comes later is counted, and not looked at.
    #[serde(with = "humantime_serde")]
    pub arrival_delay: Duration,
    /// How far counts may be behind until that is said, and the alerter is not ready.
    #[serde(with = "humantime_serde")]
    pub late_after: Duration,
    /// Of so many days of a fleet, one may have an incident of nothing.
    pub days_per_false_incident: f64,
    /// Which days are like which, and what is announced: a file (`crates/detect/src/calendar.rs` has its form); empty: nothing is known of it.
    pub calendar: PathBuf,
    /// Where the console is reached, for links to incidents; empty: there are none.
    pub console_url: String,
    /// How long a reversal or a query may take to tell what became of money until that is said.
    #[serde(with = "humantime_serde")]
    pub unsettled_after: Duration,
    /// How failures are looked at together.
    pub attribution: AttributionConfig,
    /// Who is told of changes.
    pub webhook: WebhookConfig,
    /// Who is told of what goes on.
    pub alertmanager: AlertmanagerConfig,
}

impl Default for AlerterConfig {
    fn default() -> Self {
        AlerterConfig {
            arrival_delay: Duration::from_secs(3),
            late_after: Duration::from_secs(60),
            days_per_false_incident: Settings::default().days_per_false_incident,
            calendar: PathBuf::new(),
            console_url: String::new(),
            unsettled_after: Duration::from_secs(900),
            attribution: AttributionConfig::default(),
            webhook: WebhookConfig::default(),
            alertmanager: AlertmanagerConfig::default(),
        }
    }
}

/// Settings of attribution.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AttributionConfig {
    /// How often.
    #[serde(with = "humantime_serde")]
    pub interval: Duration,
    /// How far back. What is longer ago stays as it was settled.
    #[serde(with = "humantime_serde")]
    pub window: Duration,
}

impl Default for AttributionConfig {
    fn default() -> Self {
        AttributionConfig { interval: Duration::from_secs(60), window: Duration::from_secs(3600) }
    }
}

/// Settings of the webhook.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WebhookConfig {
    /// Where incidents are posted to; empty: nowhere. Often it has a key in it, so it is never written out again.
    #[serde(skip_serializing)]
    pub url: SecretString,
    /// How long an answer may take.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
    /// How long it is tried to tell of a change.
    #[serde(with = "humantime_serde")]
    pub give_up_after: Duration,
}

impl Default for WebhookConfig {
    fn default() -> Self {
        WebhookConfig { url: SecretString::default(), timeout: Duration::from_secs(10), give_up_after: Duration::from_secs(3600) }
    }
}

/// Settings of Alertmanager.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AlertmanagerConfig {
    /// Where they are reached, separated by commas; empty: there are none. They may have a password in them, so they are never written out again.
    #[serde(skip_serializing)]
    pub urls: SecretString,
    /// How long an answer may take.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
    /// How often they are told what goes on. What they were not told of for four times as long is resolved for them.
    #[serde(with = "humantime_serde")]
    pub resend_interval: Duration,
}

impl Default for AlertmanagerConfig {
    fn default() -> Self {
        AlertmanagerConfig { urls: SecretString::default(), timeout: Duration::from_secs(10), resend_interval: Duration::from_secs(60) }
    }
}

impl WebhookConfig {
    /// Where to post to, if anywhere.
    pub(crate) fn address(&self) -> Result<Option<Url>, String> {
        let text = self.url.expose_secret();
        if text.is_empty() { Ok(None) } else { address(text).map(Some) }
    }
}

impl AlertmanagerConfig {
    /// Where they are reached.
    pub(crate) fn addresses(&self) -> Result<Vec<Url>, String> {
        self.urls.expose_secret().split(',').map(str::trim).filter(|text| !text.is_empty()).map(base_address).collect()
    }
}

/// An address that a path is added to.
fn base_address(text: &str) -> Result<Url, String> {
    let url = address(text)?;
    if url.query().is_some() || url.fragment().is_some() {
        Err("it has a query or a fragment in it, and a path is added to it".into())
    } else {
        Ok(url)
    }
}

/// An address to post to. It is not shown when it is wrong: it may be a secret.
fn address(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("it is not an address ({error}); it is not shown here"))?;
    match url.scheme() {
        "http" | "https" => Ok(url),
        other => Err(format!("`{other}` is not http or https")),
    }
}

impl AlerterConfig {
    /// Checks what the types do not: the key that is wrong, and why.
    pub(crate) fn check(&self) -> Result<(), (&'static str, String)> {
        let second = Duration::from_secs(1);
        for (key, value, least, most) in [
            ("arrival_delay", self.arrival_delay, Duration::ZERO, 60 * second),
            ("late_after", self.late_after, 20 * second, 86_400 * second),
            ("unsettled_after", self.unsettled_after, 60 * second, 7 * 86_400 * second),
            ("attribution.interval", self.attribution.interval, second, 3600 * second),
            ("attribution.window", self.attribution.window, 60 * second, 86_400 * second),
            ("webhook.timeout", self.webhook.timeout, second, 60 * second),
            ("webhook.give_up_after", self.webhook.give_up_after, second, 7 * 86_400 * second),
            ("alertmanager.timeout", self.alertmanager.timeout, second, 60 * second),
            ("alertmanager.resend_interval", self.alertmanager.resend_interval, 10 * second, 600 * second),
        ] {
            if !(least..=most).contains(&value) {
                let (value, least, most) = (value.as_secs_f64(), least.as_secs_f64(), most.as_secs_f64());
                return Err((key, format!("{value} s is not within {least} s to {most} s")));
            }
        }
        let days = self.days_per_false_incident;
        if !Settings::DAYS.contains(&days) {
            let (least, most) = Settings::DAYS.into_inner();
            return Err(("days_per_false_incident", format!("{days} is not within {least} to {most}")));
        }
        self.console().map_err(|reason| ("console_url", reason))?;
        self.alertmanager.addresses().map_err(|reason| ("alertmanager.urls", reason))?;
        self.webhook.address().map(|_| ()).map_err(|reason| ("webhook.url", reason))
    }

    /// What can be chosen of detection.
    #[must_use]
    pub fn detection(&self) -> Settings {
        Settings { days_per_false_incident: self.days_per_false_incident }
    }

    /// Where the console is reached, if that is said.
    pub(crate) fn console(&self) -> Result<Option<Url>, String> {
        if self.console_url.is_empty() { Ok(None) } else { base_address(&self.console_url).map(Some) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_outside_its_limits_is_named() {
        assert_eq!(AlerterConfig::default().check(), Ok(()));
        let slow = AlerterConfig { arrival_delay: Duration::from_secs(61), ..AlerterConfig::default() };
        assert_eq!(slow.check().unwrap_err(), ("arrival_delay", "61 s is not within 0 s to 60 s".into()));
        for days in [0.5, f64::NAN] {
            let eager = AlerterConfig { days_per_false_incident: days, ..AlerterConfig::default() };
            assert_eq!(eager.check().unwrap_err(), ("days_per_false_incident", format!("{days} is not within 1 to 3650")));
        }
        let linked = AlerterConfig { console_url: "https://faultline.example/?x=1".into(), ..AlerterConfig::default() };
        assert_eq!(linked.check().unwrap_err(), ("console_url", "it has a query or a fragment in it, and a path is added to it".into()));
    }

    #[test]
    fn an_address_is_not_shown() {
        let to = |url: &str| AlerterConfig {
            webhook: WebhookConfig { url: url.to_owned().into(), ..WebhookConfig::default() },
            ..AlerterConfig::default()
        };
        for (wrong, said) in [("hooks.example/key=hunter2", "not an address"), ("ftp://hunter2@example.org/", "`ftp` is not http")] {
            let (key, reason) = to(wrong).check().unwrap_err();
            assert!(key == "webhook.url" && reason.contains(said) && !reason.contains("hunter2"), "{reason}");
        }
        let right = to("https://hooks.example/send?key=hunter2");
        right.check().unwrap();
        assert!(!format!("{right:?}").contains("hunter2"));
    }
}
