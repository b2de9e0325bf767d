//! Settings of the console.

use std::net::{Ipv4Addr, SocketAddr};

use serde::{Deserialize, Serialize};

/// Settings of the console.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ConsoleConfig {
    /// Where page and API are served, without encryption or credentials.
    pub listen: SocketAddr,
    /// Whether others than this machine may be served all the same.
    pub serve_anyone: bool,
    /// Names by which it may be asked, beside `localhost` and addresses, separated by commas.
    pub hosts: String,
    /// Questions to ClickHouse at one moment. Beyond that they wait for a moment, and are then sent away.
    pub max_questions: usize,
    /// Connections at one moment. More wait to be accepted.
    pub max_connections: usize,
}

impl Default for ConsoleConfig {
    fn default() -> Self {
        ConsoleConfig {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 18090)),
            serve_anyone: false,
            hosts: String::new(),
            max_questions: 12,
            max_connections: 256,
        }
    }
}

impl ConsoleConfig {
    /// Checks what the types do not: the key that is wrong, and why.
    pub(crate) fn check(&self) -> Result<(), (&'static str, String)> {
        if !self.listen.ip().is_loopback() && !self.serve_anyone {
            let reason = format!(
                "{} is reached by others than this machine, and nobody is asked who they are; put a proxy with credentials before it, \
                 or say that this is accepted (`console.serve_anyone = true`)",
                self.listen
            );
            return Err(("listen", reason));
        }
        for (key, value, least, most) in [
            // As many as one answer may need.
            ("max_questions", self.max_questions, 3, 1000),
            ("max_connections", self.max_connections, 1, 100_000),
        ] {
            if !(least..=most).contains(&value) {
                return Err((key, format!("{value} is not within {least} to {most}")));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_are_served_only_where_that_is_said() {
        let here = ConsoleConfig::default();
        assert_eq!(here.check(), Ok(()));
        let everywhere = ConsoleConfig { listen: "0.0.0.0:18090".parse().unwrap(), ..here };
        let (key, reason) = everywhere.check().unwrap_err();
        assert!(key == "listen" && reason.contains("0.0.0.0:18090") && reason.contains("console.serve_anyone"), "{reason}");
        assert_eq!(ConsoleConfig { serve_anyone: true, ..everywhere }.check(), Ok(()));
    }

    #[test]
    fn what_is_outside_its_limits_is_named() {
        let none = ConsoleConfig { max_questions: 0, ..ConsoleConfig::default() };
        assert_eq!(none.check(), Err(("max_questions", "0 is not within 3 to 1000".into())));
    }
}
