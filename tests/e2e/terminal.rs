//! A terminal's side of the contract: calls with a token, as messages or as bytes.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::{Buf, BufMut, Bytes};
use faultline_proto::ingest::v1::ingest_service_client::IngestServiceClient;
use faultline_proto::ingest::v1::stream_outcomes_request::Message as Request;
use faultline_proto::ingest::v1::stream_outcomes_response::Message as Response;
use faultline_proto::ingest::v1::{
    BatchAcknowledgement, Event, OutcomeBatch, ReportOutcomesRequest, ReportOutcomesResponse, StreamOutcomesRequest, StreamOutcomesResponse,
};
use faultline_proto::outcome::v1::{Outcome, Stage, TransactionType};
use faultline_proto::terminal::v1::TerminalProfile;
use prost::Message;
use prost_types::Timestamp;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::codec::{Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use crate::sandbox::PATIENCE;

/// A terminal with a token.
#[derive(Clone)]
pub(crate) struct Terminal {
    channel: Channel,
    authorization: AsciiMetadataValue,
}

/// An open stream.
pub(crate) struct Stream {
    requests: mpsc::Sender<StreamOutcomesRequest>,
    responses: Streaming<StreamOutcomesResponse>,
}

impl Terminal {
    pub(crate) fn new(channel: Channel, token: &str) -> Terminal {
        Terminal { channel, authorization: format!("Bearer {token}").parse().unwrap() }
    }

    fn request<T>(&self, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        request.metadata_mut().insert("authorization", self.authorization.clone());
        request
    }

    /// Reports one batch in one call.
    pub(crate) async fn report(&self, batch: OutcomeBatch) -> Result<BatchAcknowledgement, Status> {
        self.report_whole(ReportOutcomesRequest { profile: Some(profile()), batch: Some(batch), rules: None })
            .await
            .map(|response| response.acknowledgement.unwrap())
    }

    pub(crate) async fn report_whole(&self, request: ReportOutcomesRequest) -> Result<ReportOutcomesResponse, Status> {
        let mut client = IngestServiceClient::new(self.channel.clone());
        timeout(PATIENCE, client.report_outcomes(self.request(request))).await.expect("no answer").map(tonic::Response::into_inner)
    }

    /// The same, compressed.
    pub(crate) async fn report_compressed(&self, batch: OutcomeBatch) -> Result<BatchAcknowledgement, Status> {
        let mut client = IngestServiceClient::new(self.channel.clone()).send_compressed(CompressionEncoding::Gzip);
        let response =
            client.report_outcomes(self.request(ReportOutcomesRequest { profile: None, batch: Some(batch), rules: None })).await?;
        Ok(response.into_inner().acknowledgement.unwrap())
    }

    /// Sends these bytes as the request of a call with one batch, whatever they are.
    pub(crate) async fn report_bytes(&self, request: Vec<u8>) -> Result<ReportOutcomesResponse, Status> {
        let mut client = tonic::client::Grpc::new(self.channel.clone());
        client.ready().await.unwrap();
        let path = "/faultline.ingest.v1.IngestService/ReportOutcomes".parse().unwrap();
        client.unary(self.request(Bytes::from(request)), path, BytesOut).await.map(tonic::Response::into_inner)
    }

    /// Begins a call with one batch and never sends the batch.
    pub(crate) async fn open_without_message(&self) -> Result<ReportOutcomesResponse, Status> {
        let mut client = tonic::client::Grpc::new(self.channel.clone());
        client.ready().await.unwrap();
        let path = "/faultline.ingest.v1.IngestService/ReportOutcomes".parse().unwrap();
        client.client_streaming(self.request(tokio_stream::pending()), path, BytesOut).await.map(tonic::Response::into_inner)
    }

    /// Opens a stream, and takes the settings that it begins with.
    pub(crate) async fn stream(&self) -> Stream {
        self.try_stream().await.unwrap()
    }

    /// The same, where it may be refused.
    pub(crate) async fn try_stream(&self) -> Result<Stream, Status> {
        let (requests, receiver) = mpsc::channel(1);
        let mut client = IngestServiceClient::new(self.channel.clone());
        let responses = client.stream_outcomes(self.request(ReceiverStream::new(receiver))).await?.into_inner();
        let mut stream = Stream { requests, responses };
        // On its way to the settings, it may be cut as at any other moment.
        match stream.next().await? {
            Some(Response::Settings(_)) => Ok(stream),
            other => panic!("a stream begins with {other:?}"),
        }
    }
}

impl Stream {
    pub(crate) async fn send(&self, message: Request) {
        // The stream may have ended already; what it says then is in its answers.
        let _ = self.requests.send(StreamOutcomesRequest { message: Some(message) }).await;
    }

    pub(crate) async fn next(&mut self) -> Result<Option<Response>, Status> {
        let response = timeout(PATIENCE, self.responses.message()).await.expect("no answer")?;
        Ok(response.map(|response| response.message.unwrap()))
    }

    /// Sends a batch and waits for its acknowledgement.
    pub(crate) async fn report(&mut self, batch: OutcomeBatch) -> Result<BatchAcknowledgement, Status> {
        self.send(Request::Batch(batch)).await;
        match self.next().await? {
            Some(Response::Acknowledgement(acknowledgement)) => Ok(acknowledgement),
            other => panic!("{other:?} is not an acknowledgement"),
        }
    }
}

/// Sends bytes, reads the response of a call with one batch.
struct BytesOut;

impl Codec for BytesOut {
    type Encode = Bytes;
    type Decode = ReportOutcomesResponse;
    type Encoder = BytesOut;
    type Decoder = BytesOut;

    fn encoder(&mut self) -> BytesOut {
        BytesOut
    }

    fn decoder(&mut self) -> BytesOut {
        BytesOut
    }
}

impl Encoder for BytesOut {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, destination: &mut EncodeBuf<'_>) -> Result<(), Status> {
        destination.put(item);
        Ok(())
    }
}

impl Decoder for BytesOut {
    type Item = ReportOutcomesResponse;
    type Error = Status;

    fn decode(&mut self, source: &mut DecodeBuf<'_>) -> Result<Option<ReportOutcomesResponse>, Status> {
        Ok(Some(ReportOutcomesResponse::decode(source.copy_to_bytes(source.remaining())).unwrap()))
    }
}

pub(crate) fn profile() -> TerminalProfile {
    TerminalProfile { model: "PAX A920".into(), carrier: "46000".into(), region: "440300".into(), ..TerminalProfile::default() }
}

/// A sale that waited in vain.
pub(crate) fn outcome() -> Outcome {
    Outcome {
        merchant_id: "898440351980019".into(),
        r#type: TransactionType::Sale.into(),
        stage: Stage::Wait.into(),
        amount_minor: 1234,
        currency_code: "CNY".into(),
        bin: "621234".into(),
        ..Outcome::default()
    }
}

pub(crate) fn event(sequence: u64) -> Event {
    Event { sequence, age_ms: Some(100), outcome: Some(outcome()) }
}

pub(crate) fn saying(sequence: u64, diagnostic: &str) -> Event {
    Event { outcome: Some(Outcome { diagnostic: diagnostic.into(), ..outcome() }), ..event(sequence) }
}

/// A batch sent now by a terminal whose clock is right.
pub(crate) fn batch(events: Vec<Event>) -> OutcomeBatch {
    OutcomeBatch { spool_id: 7, events, send_time: Some(in_seconds(0)), ..OutcomeBatch::default() }
}

/// The moment so many seconds from now.
pub(crate) fn in_seconds(seconds: i64) -> Timestamp {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    Timestamp { seconds: i64::try_from(now).unwrap() + seconds, nanos: 0 }
}
