//! The address of a ClickHouse server.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use url::Url;

/// An address of the form `http://host:port`. It has no user, password or query in it, so it can be shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HttpUrl(Url);

/// Why a text is not an [`HttpUrl`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// It has another form.
    #[error("is not an address of the form http://host:port")]
    Form,
    /// It carries credentials, which would be shown wherever the address is.
    #[error("has a user, a password or a query in it (not shown); set `clickhouse.user` and `clickhouse.password` instead")]
    Credentials,
}

impl FromStr for HttpUrl {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<HttpUrl, AddressError> {
        if text.contains(['@', '?', '#']) {
            return Err(AddressError::Credentials);
        }
        let url = Url::parse(text).map_err(|_| AddressError::Form)?;
        if url.scheme() == "http" && url.has_host() { Ok(HttpUrl(url)) } else { Err(AddressError::Form) }
    }
}

impl TryFrom<String> for HttpUrl {
    type Error = AddressError;

    fn try_from(text: String) -> Result<HttpUrl, AddressError> {
        text.parse()
    }
}

impl From<HttpUrl> for String {
    fn from(url: HttpUrl) -> String {
        url.0.into()
    }
}

impl fmt::Display for HttpUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// Several addresses, separated by commas, in an order that means something.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HttpUrls(pub Vec<HttpUrl>);

impl TryFrom<String> for HttpUrls {
    type Error = AddressError;

    fn try_from(text: String) -> Result<HttpUrls, AddressError> {
        text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::parse).collect::<Result<_, _>>().map(HttpUrls)
    }
}

impl From<HttpUrls> for String {
    fn from(urls: HttpUrls) -> String {
        urls.0.into_iter().map(String::from).collect::<Vec<_>>().join(",")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_addresses_keep_their_order() {
        let urls = HttpUrls::try_from("http://b:8123, http://a:8123,".to_owned()).unwrap();
        assert_eq!(String::from(urls), "http://b:8123/,http://a:8123/");
        assert_eq!(HttpUrls::try_from(String::new()).unwrap(), HttpUrls::default());
        assert_eq!(HttpUrls::try_from("http://a:8123,b".to_owned()), Err(AddressError::Form));
    }

    #[test]
    fn only_a_plain_http_address_is_one() {
        let address: HttpUrl = "http://127.0.0.1:8123".parse().unwrap();
        assert_eq!(address.to_string(), "http://127.0.0.1:8123/");
        for text in ["", "127.0.0.1:8123", "https://127.0.0.1:8443", "tcp://127.0.0.1:9000", "http://127.0.0.1:99999"] {
            assert_eq!(text.parse::<HttpUrl>(), Err(AddressError::Form), "{text}");
        }
    }

    #[test]
    fn credentials_are_refused_and_not_repeated() {
        for text in ["http://app:hunter2@here:8123", "https://app:hunter2@here:99999", "http://here:8123/?password=hunter2"] {
            let error = text.parse::<HttpUrl>().unwrap_err();
            assert!(!error.to_string().contains("hunter2") && error == AddressError::Credentials, "{text}: {error}");
        }
    }
}
