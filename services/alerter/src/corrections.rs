//! Corrections of stored outcomes, by one process at a time: what somebody left half done is settled first.

use std::time::{Duration, SystemTime};

use faultline_proto::correction::v1::{Correction, CorrectionKind, CorrectionState};
use faultline_store::{CorrectionError, Corrector, Database, Journal, Settled, StoreError};
use faultline_stream::{CorrectionLog, KafkaConfig, LogError, StreamError};
use uuid::Uuid;

/// How long nothing is heard of a correction until it is taken for left.
const LEFT_AFTER: Duration = Duration::from_secs(120);

/// Why nothing can be corrected.
#[derive(Debug, thiserror::Error)]
pub enum CorrectionsError {
    /// Another process is correcting.
    #[error("correction {id} of tenant {tenant} is being made; it was heard of {seconds} s ago, and is taken for left after {} s", LEFT_AFTER.as_secs())]
    Busy {
        /// The correction.
        id: String,
        /// Its tenant.
        tenant: String,
        /// When it was last heard of.
        seconds: u64,
    },
    /// Another process has taken over, or Kafka does not answer.
    #[error(transparent)]
    Log(#[from] LogError),
    /// What somebody left cannot be settled.
    #[error("correction {id} was left half done, and cannot be settled")]
    Unsettled {
        /// The correction.
        id: String,
        /// Why.
        source: StoreError,
    },
}

impl From<StreamError> for CorrectionsError {
    fn from(error: StreamError) -> CorrectionsError {
        CorrectionsError::Log(error.into())
    }
}

/// The right to correct, and every correction there was.
pub struct Corrections {
    database: Database,
    journal: CorrectionJournal,
    known: Vec<Correction>,
}

/// Where corrections are written down.
pub struct CorrectionJournal(CorrectionLog);

impl Journal for CorrectionJournal {
    type Error = LogError;

    async fn write(&self, correction: &Correction) -> Result<(), LogError> {
        self.0.write(correction).await
    }
}

impl Corrections {
    /// Takes the right to correct, from whoever had it and left; settles what it left half done.
    ///
    /// # Errors
    /// When another is correcting, Kafka or ClickHouse does not answer, or what was left cannot be settled.
    pub async fn open(kafka: &KafkaConfig, database: &Database) -> Result<Corrections, CorrectionsError> {
        // Who is at work is not disturbed.
        if let Some(busy) = CorrectionLog::read(kafka).await?.iter().find_map(at_work) {
            return Err(busy);
        }
        let (log, mut known) = CorrectionLog::take_over(kafka).await?;
        for left in known.iter_mut().filter(|correction| correction.state() == CorrectionState::Open) {
            settle(database, left).await?;
            left.step = None;
            left.set_state(CorrectionState::Interrupted);
            left.update_time = Some(SystemTime::now().into());
            log.write(left).await?;
        }
        Ok(Corrections { database: database.clone(), journal: CorrectionJournal(log), known })
    }

    /// Every correction, the first begun first.
    #[must_use]
    pub fn known(&self) -> &[Correction] {
        &self.known
    }

    /// Begins a correction, or goes on with one that is known.
    ///
    /// # Errors
    /// When it cannot be written down.
    pub async fn make(&self, correction: Correction) -> Result<Corrector<'_, CorrectionJournal>, CorrectionError<LogError>> {
        Corrector::begin(&self.database, &self.journal, correction).await
    }
}

/// A correction that nobody has begun yet.
#[must_use]
pub fn correction(tenant: &str, kind: CorrectionKind, description: String) -> Correction {
    let mut correction = Correction {
        correction_id: Uuid::new_v4().simple().to_string().chars().take(16).collect(),
        tenant: tenant.into(),
        description,
        begin_time: Some(SystemTime::now().into()),
        ..Correction::default()
    };
    correction.set_kind(kind);
    correction
}

/// Who is at work on a correction, as far as anybody can know.
fn at_work(correction: &Correction) -> Option<CorrectionsError> {
    let heard = SystemTime::try_from(correction.update_time?).ok()?;
    let silence = heard.elapsed().unwrap_or_default();
    let is_at_work = correction.state() == CorrectionState::Open && silence < LEFT_AFTER;
    is_at_work.then(|| CorrectionsError::Busy {
        id: correction.correction_id.clone(),
        tenant: correction.tenant.clone(),
        seconds: silence.as_secs(),
    })
}

/// Makes the step whole that somebody left.
async fn settle(database: &Database, left: &Correction) -> Result<(), CorrectionsError> {
    let id = &left.correction_id;
    match database.settle_correction(left).await {
        Ok(Settled { rows, drilldown, sums }) => {
            tracing::warn!(
                id,
                tenant = left.tenant,
                rows,
                drilldown,
                sums,
                "a correction was left before its end; its last step is whole now"
            );
        }
        // Outcomes are kept for so long and no longer, and with them goes what was to be corrected.
        Err(StoreError::Vanishing { rows, .. }) => {
            tracing::error!(
                id,
                tenant = left.tenant,
                rows,
                "a correction was left before its end, and outcomes of its last step are gone; they stay as they were"
            );
        }
        // Nobody can have made anything of it.
        Err(error @ StoreError::Step { .. }) => tracing::error!(id, tenant = left.tenant, %error, "a correction was left before its end"),
        Err(source) => return Err(CorrectionsError::Unsettled { id: id.clone(), source }),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_heard_of_lately_is_at_work() {
        let heard = |seconds: u64, state| {
            let time = SystemTime::now() - Duration::from_secs(seconds);
            let mut open = Correction { update_time: Some(time.into()), ..correction("acme", CorrectionKind::Replay, String::new()) };
            open.set_state(state);
            at_work(&open).is_some()
        };
        assert!(heard(0, CorrectionState::Open) && heard(110, CorrectionState::Open));
        assert!(!heard(130, CorrectionState::Open) && !heard(0, CorrectionState::Finished) && !heard(0, CorrectionState::Interrupted));
    }
}
