//! A fleet of terminals that does not exist, for trying Faultline out and for testing it: shops all over China whose customers pay with the cards of many
//! banks, now and then in vain. It reports through the SDK as terminals do, and a [`Scenario`] says what goes wrong.

mod drive;
mod endings;
mod fault;
mod fleet;
mod history;
mod rhythm;
pub mod scenario;
mod traffic;
mod wear;

pub use drive::{Gateway, Progress, Simulation, SimulationError};
pub use history::HistoryError;
pub use scenario::{Scenario, ScenarioError};
