//! Configuration: defaults, then a file, then the environment.
//!
//! Each component declares its own part as a plain struct with real types, defaults and `deny_unknown_fields`; a service puts the parts
//! together in one struct and calls [`load`]. Command-line options, where there are any, win over what is loaded here.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

/// Environment variables that begin so set a key: `FAULTLINE__KAFKA__BROKERS` sets `kafka.brokers`.
const ENVIRONMENT_PREFIX: &str = "FAULTLINE";

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read, or is not TOML.
    #[error("cannot read the configuration {}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong, with the line.
        reason: String,
    },
    /// A key is not known, or its value is not of its type.
    #[error("configuration key `{key}`: {reason}")]
    Key {
        /// Dotted path of the key.
        key: String,
        /// What is wrong with it, with the value and where it was set.
        reason: String,
    },
}

/// Loads a configuration: what neither `file` nor the environment sets has the default of its type.
///
/// # Errors
/// When the file cannot be read, a key is not known, or a value is not of its key's type.
pub fn load<T: DeserializeOwned>(file: Option<&Path>) -> Result<T, ConfigError> {
    let environment = config::Environment::with_prefix(ENVIRONMENT_PREFIX).prefix_separator("__").separator("__");
    load_from(file, environment)
}

fn load_from<T: DeserializeOwned>(file: Option<&Path>, environment: config::Environment) -> Result<T, ConfigError> {
    let mut sources = config::Config::builder();
    if let Some(path) = file {
        let unreadable = |reason: String| ConfigError::File { path: path.to_path_buf(), reason };
        let text = std::fs::read_to_string(path).map_err(|error| unreadable(error.to_string()))?;
        // Parsed once by itself, for an error with the line's number. The line itself may hold a secret.
        toml::from_str::<toml::Table>(&text).map_err(|error| {
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            unreadable(format!("line {}: {}", before.matches('\n').count() + 1, error.message()))
        })?;
        sources = sources.add_source(config::File::from(path).format(config::FileFormat::Toml));
    }
    let merged =
        sources.add_source(environment).build().map_err(|error| ConfigError::Key { key: "?".into(), reason: error.to_string() })?;
    serde_path_to_error::deserialize(merged.clone()).map_err(|error| {
        let key = error.path().to_string();
        let reason = explain(&key, merged.get_string(&key).ok(), error.into_inner().to_string());
        ConfigError::Key { key, reason }
    })
}

/// Says what is wrong with a key, with its value unless that is or may be a secret.
fn explain(key: &str, value: Option<String>, reason: String) -> String {
    if reason.starts_with("unknown field") {
        return reason;
    }
    if is_secret(key) {
        return "its value (not shown) is not of the right type".into();
    }
    if reason.contains("expected struct") {
        // What was meant for one of the table's keys may be a secret.
        return "is a table with keys of its own, not a single value".into();
    }
    match value {
        // A user and a password in an address stand before an @, other credentials after a question mark.
        Some(value) if !reason.contains(&value) && !value.contains(['@', '?']) => {
            format!("`{value}`: {reason}")
        }
        _ => reason,
    }
}

/// Whether the value of a key must not be shown.
fn is_secret(key: &str) -> bool {
    let name = key.rsplit('.').next().unwrap_or(key);
    ["password", "secret", "token"].iter().any(|word| name.contains(word)) && !name.ends_with("_file")
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::net::SocketAddr;
    use std::time::Duration;

    use super::*;

    #[derive(Debug, Default, PartialEq, serde::Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Example {
        listen: Listen,
        name: String,
    }

    #[derive(Debug, PartialEq, serde::Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Listen {
        address: SocketAddr,
        #[serde(with = "humantime_serde")]
        patience: Duration,
    }

    impl Default for Listen {
        fn default() -> Self {
            Listen { address: SocketAddr::from(([127, 0, 0, 1], 1)), patience: Duration::from_secs(1) }
        }
    }

    fn load_example(file: &str, variables: &[(&str, &str)]) -> Result<Example, ConfigError> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("example.toml");
        std::fs::write(&path, file).unwrap();
        let variables: HashMap<String, String> = variables.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        let environment =
            config::Environment::with_prefix(ENVIRONMENT_PREFIX).prefix_separator("__").separator("__").source(Some(variables));
        load_from(Some(&path), environment)
    }

    #[test]
    fn the_environment_wins_over_the_file_and_the_file_over_the_default() {
        let loaded = load_example(
            "name = 'file'\n[listen]\naddress = '127.0.0.1:2'",
            &[("FAULTLINE__NAME", "environment"), ("OTHER__NAME", "not ours")],
        )
        .unwrap();
        assert_eq!(loaded.name, "environment");
        assert_eq!(loaded.listen, Listen { address: "127.0.0.1:2".parse().unwrap(), ..Listen::default() });
    }

    #[test]
    fn a_wrong_key_is_named_with_what_would_be_right() {
        let message = load_example("[listen]\nadress = '127.0.0.1:2'", &[]).unwrap_err().to_string();
        assert!(message.contains("listen.adress") && message.contains("expected `address` or `patience`"), "{message}");
    }

    #[test]
    fn a_wrong_value_is_shown_with_its_key() {
        let message = load_example("[listen]\npatience = 'soon'", &[]).unwrap_err().to_string();
        assert!(message.contains("listen.patience") && message.contains("soon"), "{message}");
        let message = load_example("", &[("FAULTLINE__LISTEN__ADDRESS", "nowhere")]).unwrap_err().to_string();
        assert!(message.contains("listen.address") && message.contains("nowhere"), "{message}");
    }

    #[test]
    fn a_secret_is_not_shown() {
        #[derive(Debug, Default, serde::Deserialize)]
        #[serde(default, deny_unknown_fields)]
        struct WithSecret {
            password: Vec<u8>,
        }
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret.toml");
        std::fs::write(&path, "password = 'hunter2'").unwrap();
        let message = load::<WithSecret>(Some(&path)).unwrap_err().to_string();
        assert!(message.contains("`password`") && !message.contains("hunter2"), "{message}");
    }

    #[test]
    fn a_misspelt_secret_is_told_its_name_and_not_shown() {
        let message = load_example("", &[("FAULTLINE__LISTEN__TOKEN_FIL", "hunter2")]).unwrap_err().to_string();
        assert!(message.contains("unknown field") && message.contains("token_fil") && !message.contains("hunter2"), "{message}");
    }

    #[test]
    fn what_may_hold_a_secret_is_not_shown() {
        let message = load_example("", &[("FAULTLINE__LISTEN", "hunter2")]).unwrap_err().to_string();
        assert!(message.contains("`listen`: is a table") && !message.contains("hunter2"), "{message}");
        let message = load_example("", &[("FAULTLINE__LISTEN__ADDRESS", "http://app:hunter2@here")]).unwrap_err().to_string();
        assert!(message.contains("listen.address") && !message.contains("hunter2"), "{message}");
    }

    #[test]
    fn a_variable_is_taken_as_it_is_written() {
        for value in ["0123", "1e5", "TRUE", "1.50"] {
            assert_eq!(load_example("", &[("FAULTLINE__NAME", value)]).unwrap().name, value);
        }
    }

    #[test]
    fn a_file_that_is_not_toml_is_named_with_its_line() {
        let message = load_example("name = 'x'\n\npassword = hunter2", &[]).unwrap_err().to_string();
        assert!(message.contains("example.toml") && message.contains("line 3") && !message.contains("hunter2"), "{message}");
    }
}
