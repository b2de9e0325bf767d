//! End to end: real Kafka, real ClickHouse, and the program as a user runs it.
//!
//! [`sandbox`] starts the parts that all tests share; [`program`] runs `faultline` as a child process where a test needs one to itself.
//! Nothing is fetched here: `make test` installs the parts first.

mod program;
mod sandbox;

mod documents;
mod store;
mod topics;
mod up;
