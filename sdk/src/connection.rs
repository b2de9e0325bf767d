//! The way to Faultline: an address, a token, and what makes sure of the other end.

use std::time::Duration;

use faultline_proto::ingest::v1::ingest_service_client::IngestServiceClient;
use faultline_proto::ingest::v1::{ReportOutcomesResponse, StreamOutcomesRequest, StreamOutcomesResponse};
use prost::Message;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Request, Status, Streaming};
use tonic_prost::ProstCodec;

/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// How often a silent connection is asked whether it is still there, and how long the answer may take. Mobile networks forget a silent connection after some
/// minutes, and tell nobody.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(60);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// Why there is no way.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    /// The address is not one.
    #[error("`{address}` is not an address of a gateway: `http://host:port` or `https://host:port`")]
    Address {
        /// What was given.
        address: String,
    },
    /// The token is not one. It is not shown.
    #[error("the token (not shown) is empty, or has characters that no token has")]
    Token,
    /// A certificate and no TLS, or the other way round.
    #[error("`{address}`: {reason}")]
    Tls {
        /// The address.
        address: String,
        /// What does not fit.
        reason: &'static str,
    },
    /// The certificate cannot be used.
    #[error("the certificate of the authority")]
    Certificate(#[source] tonic::transport::Error),
}

/// The way to a gateway. It is set up when it is first needed, and again whenever it was lost. Clones share it; a gateway lets so many terminals
/// report over one connection as its `gateway.max_calls_per_connection` says.
#[derive(Clone, Debug)]
pub struct Connection {
    pub(crate) channel: Channel,
    pub(crate) authorization: AsciiMetadataValue,
}

/// What a [`Connection`] is made of.
#[derive(Clone)]
pub struct ConnectionBuilder {
    address: String,
    token: String,
    ca_certificate: Option<String>,
}

impl Connection {
    /// A way to the gateway at `http://host:port`, or with TLS at `https://host:port`, with this bearer token.
    pub fn builder(address: impl Into<String>, token: impl Into<String>) -> ConnectionBuilder {
        ConnectionBuilder { address: address.into(), token: token.into(), ca_certificate: None }
    }

    /// Opens a stream. What is put into the sender is sent.
    pub(crate) async fn open(
        &self,
        capacity: usize,
    ) -> Result<(mpsc::Sender<StreamOutcomesRequest>, Streaming<StreamOutcomesResponse>), Status> {
        let (requests, receiver) = mpsc::channel(capacity);
        let mut request = Request::new(ReceiverStream::new(receiver));
        request.metadata_mut().insert("authorization", self.authorization.clone());
        let responses = IngestServiceClient::new(self.channel.clone()).stream_outcomes(request).await?;
        Ok((requests, responses.into_inner()))
    }

    /// Reports one batch in one call, once: for whoever collects the outcomes of many terminals, and keeps each until it is acknowledged. `request` is a
    /// [`ReportOutcomesRequest`](faultline_proto::ingest::v1::ReportOutcomesRequest), or a message that is encoded like one.
    ///
    /// # Errors
    /// With what the contract says of the status (`faultline/ingest/v1/ingest_service.proto`), or what the connection says.
    pub async fn report<M: Message + 'static>(&self, request: M) -> Result<ReportOutcomesResponse, Status> {
        let mut request = Request::new(request);
        request.metadata_mut().insert("authorization", self.authorization.clone());
        let mut client = Grpc::new(self.channel.clone());
        client.ready().await.map_err(|error| Status::from_error(error.into()))?;
        let path = PathAndQuery::from_static("/faultline.ingest.v1.IngestService/ReportOutcomes");
        let codec = ProstCodec::<M, ReportOutcomesResponse>::default();
        client.unary(request, path, codec).await.map(tonic::Response::into_inner)
    }
}

impl ConnectionBuilder {
    /// The certificate (PEM) of the authority that vouches for the gateway. Needed for TLS, and for nothing else.
    #[must_use]
    pub fn ca_certificate(self, pem: impl Into<String>) -> ConnectionBuilder {
        ConnectionBuilder { ca_certificate: Some(pem.into()), ..self }
    }

    /// Makes the way, on the tokio runtime that this is called in; nothing is sent yet.
    ///
    /// # Errors
    /// When address, token or certificate cannot be used.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn build(self) -> Result<Connection, ConnectionError> {
        let not_one = || ConnectionError::Address { address: self.address.clone() };
        let endpoint = Endpoint::from_shared(self.address.clone()).map_err(|_| not_one())?;
        let tls = |reason| ConnectionError::Tls { address: self.address.clone(), reason };
        let endpoint = match (endpoint.uri().scheme_str(), self.ca_certificate) {
            (Some("http"), None) => endpoint,
            (Some("https"), Some(pem)) => endpoint
                .tls_config(ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem)))
                .map_err(ConnectionError::Certificate)?,
            (Some("http"), Some(_)) => return Err(tls("a certificate was given, and without TLS nobody shows one; is it https?")),
            (Some("https"), None) => return Err(tls("TLS needs the certificate of the authority that vouches for the gateway")),
            _ => return Err(not_one()),
        };
        let mut authorization = AsciiMetadataValue::try_from(format!("Bearer {}", self.token)).map_err(|_| ConnectionError::Token)?;
        if self.token.is_empty() || self.token.contains(char::is_whitespace) {
            return Err(ConnectionError::Token);
        }
        authorization.set_sensitive(true);
        let channel = endpoint
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .keep_alive_while_idle(true)
            .connect_lazy();
        Ok(Connection { channel, authorization })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(builder: ConnectionBuilder) -> String {
        builder.build().err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[tokio::test]
    async fn what_is_not_a_way_is_said_without_the_token() {
        for (address, said) in [
            ("gateway:15051", "`gateway:15051` is not an address"),
            ("ftp://gateway:15051", "`ftp://gateway:15051` is not an address"),
            ("", "`` is not an address"),
            ("https://gateway:15051", "`https://gateway:15051`: TLS needs the certificate"),
        ] {
            let message = refused(Connection::builder(address, "hunter2"));
            assert!(message.contains(said) && !message.contains("hunter2"), "{message}");
        }
        let with_certificate = Connection::builder("http://gateway:15051", "hunter2").ca_certificate("");
        assert!(refused(with_certificate).contains("is it https?"));
        for token in ["", "hunter2\n", "hun ter2"] {
            let message = refused(Connection::builder("http://gateway:15051", token));
            assert!(message.contains("the token (not shown)") && !message.contains("ter2"), "{message}");
        }
        let connection = Connection::builder("http://gateway:15051", "hunter2").build().unwrap();
        assert!(!format!("{connection:?}").contains("hunter2"));
    }
}
