//! Faultline's ClickHouse: the schema and how it changes, how batches get into it once, and what is asked of it: by those who store, by those who
//! watch, and by people.

mod address;
mod attributions;
mod block;
mod clock;
mod correction_step;
mod corrections;
mod database;
mod delivery;
mod families;
mod health;
mod high_water;
mod identities;
mod incidents;
mod migrations;
mod outcomes;
mod past;
mod progress;
mod rates;
mod reported;
mod samples;
mod series;
mod server;
mod settlements;
mod unknown_codes;

pub use address::{AddressError, HttpUrl, HttpUrls};
pub use attributions::{History, Open, OpenFailure, Tried};
pub use corrections::{Change, CorrectionError, Corrector, Journal, Standing, Windows, tally};
pub use database::{ClickHouseConfig, Database, StoreError};
pub use delivery::{BatchId, Settled, Uncounted};
pub use families::{CountedSlice, Dimensions, NoSlice, Slice, families, values};
pub use health::{CountedMerchant, CountedShop, CountedTerminal, MOST_COUNTED, SampledTerminal};
pub use high_water::{RECEIPT_SLACK_S, SeenSpool, SpoolMark};
pub use identities::{Identity, SpoolEvents};
pub use incidents::{Delivered, IncidentRow, WantedIncidents};
pub use migrations::{HistoryError, Migrated};
pub use outcomes::OutcomeRow;
pub use past::{Past, PastCount};
pub use progress::Watermark;
pub use rates::{Count, FailingLeaf, Usual, UsualApprovals, UsualCount};
pub use reported::{Reported, Wanted};
pub use samples::SampleRow;
pub use series::{Counted, Rate, StepCount, UsualRates};
pub use settlements::Unsettled;
pub use unknown_codes::{Example, UnknownCode};
