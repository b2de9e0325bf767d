//! Generates the server of `faultline.ingest.v1.IngestService` with requests as bytes: the contract's own types would lose what a newer terminal
//! sends beside them. A test holds names and kinds of the methods to the contract.
//!
//! Both methods take a stream here. To a server, a call with one request is a stream of one, and so both are read by one hand.

use tonic_build::manual::{Builder, Method, Service};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let method = |name: &str, route: &str, output: &str| {
        let output = format!("faultline_proto::ingest::v1::{output}");
        Method::builder()
            .name(name)
            .route_name(route)
            .input_type("bytes::Bytes")
            .output_type(output)
            .codec_path("crate::wire::RequestBytes")
            .client_streaming()
    };
    let service = Service::builder()
        .name("IngestService")
        .package("faultline.ingest.v1")
        .method(method("stream_outcomes", "StreamOutcomes", "StreamOutcomesResponse").server_streaming().build())
        .method(method("report_outcomes", "ReportOutcomes", "ReportOutcomesResponse").build())
        .build();
    Builder::new().build_client(false).compile(&[service]);
}
