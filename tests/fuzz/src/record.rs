//! A record of a Kafka topic in one piece, so that a file can hold one.

use bytes::Bytes;

/// A record, as Kafka has it.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Record {
    /// Partition it is in.
    #[prost(int32, tag = "1")]
    pub partition: i32,
    /// Its place there.
    #[prost(int64, tag = "2")]
    pub offset: i64,
    /// When the broker appended it, in milliseconds since 1970-01-01 UTC.
    #[prost(int64, optional, tag = "3")]
    pub timestamp_ms: Option<i64>,
    /// Its key.
    #[prost(bytes = "bytes", optional, tag = "4")]
    pub key: Option<Bytes>,
    /// Its value.
    #[prost(bytes = "bytes", tag = "5")]
    pub value: Bytes,
    /// Its headers, in order.
    #[prost(message, repeated, tag = "6")]
    pub headers: Vec<Header>,
}

/// A header.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Header {
    /// Its name.
    #[prost(bytes = "vec", tag = "1")]
    pub name: Vec<u8>,
    /// What it holds.
    #[prost(bytes = "bytes", tag = "2")]
    pub content: Bytes,
}

impl Header {
    /// Its name as who reads records gets it: text, up to the first byte of zero.
    #[must_use]
    pub fn text(&self) -> String {
        let name = self.name.split(|byte| *byte == 0).next().unwrap_or_default();
        String::from_utf8_lossy(name).into_owned()
    }
}
