//! End to end: real Kafka, real ClickHouse, and the program as a user runs it.
//!
//! [`sandbox`] starts the parts that all tests share; [`program`] runs `faultline` as a child process where a test needs one to itself, [`services`]
//! are such processes as gateway and classifier, [`terminal`] is a terminal's side of the contract.
//! Nothing is fetched here: `make test` installs the parts first.

mod program;
mod replay;
mod sandbox;
mod services;
mod terminal;

mod alerter;
mod alertmanager;
mod attribution;
mod backpressure;
mod backtest;
mod chaos;
mod classifier;
mod cluster;
mod console;
mod corrections;
mod dead_letters;
mod delivery;
mod documents;
mod explanation;
mod fleet;
mod gateway;
mod health;
mod import;
mod ledger;
mod offline;
mod prometheus;
mod rules;
mod shards;
mod store;
mod sweep;
mod telemetry;
mod topics;
mod up;
