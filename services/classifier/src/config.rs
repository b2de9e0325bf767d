//! Settings of the classifier.

use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

/// Settings of the classifier.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClassifierConfig {
    /// The table of issuers' leading digits; empty: the one that comes with the program.
    pub issuers_file: PathBuf,
    /// Rule sets beside those that come with the program: a file, or a directory with files that end with `.toml`; empty: none.
    pub rules: PathBuf,
    /// How long a record may wait for others that are stored with it.
    #[serde(with = "humantime_serde")]
    pub max_batch_delay: Duration,
    /// Most bytes of records that are stored at once.
    pub max_batch_bytes: ByteSize,
    /// Records of one partition that may wait; beyond, no more are fetched.
    pub queue_bytes: ByteSize,
    /// Batches, each of another partition, that are judged and stored at one moment on one shard.
    pub concurrent_batches: u32,
    /// How often what was seen of spools is kept.
    #[serde(with = "humantime_serde")]
    pub high_water_interval: Duration,
    /// How long batches that were begun may take to be stored when the classifier stops.
    #[serde(with = "humantime_serde")]
    pub drain_within: Duration,
}

impl Default for ClassifierConfig {
    fn default() -> Self {
        ClassifierConfig {
            issuers_file: PathBuf::new(),
            rules: PathBuf::new(),
            max_batch_delay: Duration::from_secs(1),
            max_batch_bytes: ByteSize::mib(16),
            queue_bytes: ByteSize::mib(4),
            concurrent_batches: 4,
            high_water_interval: Duration::from_secs(300),
            drain_within: Duration::from_secs(25),
        }
    }
}

impl ClassifierConfig {
    /// Checks what the types do not: the key that is wrong, and why.
    pub(crate) fn check(&self) -> Result<(), (&'static str, String)> {
        let second = Duration::from_secs(1);
        for (key, value, least, most) in [
            ("max_batch_delay", self.max_batch_delay, second / 100, 60 * second),
            ("high_water_interval", self.high_water_interval, second, 86_400 * second),
            ("drain_within", self.drain_within, Duration::ZERO, 3_600 * second),
        ] {
            if !(least..=most).contains(&value) {
                return Err((
                    key,
                    format!("{} s is not within {} s to {} s", value.as_secs_f64(), least.as_secs_f64(), most.as_secs_f64()),
                ));
            }
        }
        let sizes = ByteSize::kib(64)..=ByteSize::mib(64);
        for (key, value) in [("max_batch_bytes", self.max_batch_bytes), ("queue_bytes", self.queue_bytes)] {
            if !sizes.contains(&value) {
                return Err((key, format!("{value} is not within {} to {}", sizes.start(), sizes.end())));
            }
        }
        if !(1..=256).contains(&self.concurrent_batches) {
            return Err(("concurrent_batches", format!("{} is not within 1 to 256", self.concurrent_batches)));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_outside_its_limits_is_named() {
        let right = ClassifierConfig::default();
        assert_eq!(right.check(), Ok(()));
        for (wrong, key, said) in [
            (ClassifierConfig { max_batch_delay: Duration::ZERO, ..right.clone() }, "max_batch_delay", "0 s is not within 0.01 s to 60 s"),
            (ClassifierConfig { max_batch_bytes: ByteSize::gib(1), ..right.clone() }, "max_batch_bytes", "1.0 GiB is not within 64.0 KiB"),
            (ClassifierConfig { queue_bytes: ByteSize::b(0), ..right.clone() }, "queue_bytes", "0 B"),
            (ClassifierConfig { concurrent_batches: 0, ..right.clone() }, "concurrent_batches", "0 is not within 1 to 256"),
        ] {
            let (named, reason) = wrong.check().unwrap_err();
            assert_eq!(named, key);
            assert!(reason.contains(said), "{reason}");
        }
    }
}
