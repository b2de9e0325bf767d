//! Whatever a log, a mapping or a state file holds: see `faultline_fuzz`.

use std::path::Path;
use std::sync::Arc;

use faultline_fuzz::{Fates, Target, target};
use faultline_proto::ingest::v1::Event;
use faultline_proto::outcome::v1::Outcome;
use faultline_proto::terminal::v1::TerminalProfile;
use prost::Message;

use crate::cells::Cells;
use crate::lines::Place;
use crate::log::{Input, Known, Log, LogError};
use crate::mapping::{Mapped, Mapping};
use crate::reading::{Fate, GatewayClock, Prepared, Reading};
use crate::refusals::Refusal;
use crate::state::{StateError, StateFile};

/// When the kept logs were written, in milliseconds since 1970-01-01 UTC: noon of 2026-11-29.
const NOON_MS: i64 = 1_795_953_600_000;
/// The number of a card in the kept logs.
const CARD: &str = "6212345678901234";

const OBJECTS: &str = "[log]\nformat = 'ndjson'\ncomment = '#'\n[batch]\nterminal_id = { column = 'term' }\n[outcome]\ntype = 'sale'\n\
                       merchant_id = { column = 'shop.id' }\nstage = { column = 'code', values = { '' = 'wait', '*' = 'host_decision' } }\n\
                       completion_time = { column = 'time', format = 'rfc3339' }\nbin = { column = 'card' }\n\
                       amount_minor = { column = 'amount', unit = 'decimal' }\ncurrency_code = { column = 'currency' }\n\
                       response_code = { column = 'code' }\nresponse_spec = 'unionpay-pos'\ndiagnostic = { column = 'text' }\n\
                       order_number = { column = 'order', if_invalid = 'leave_out' }\nemv.terminal_verification_results = { column = 'tvr' }\n\
                       [profile]\nmodel = { column = 'model' }\n";

fn log(directory: &Path, content: &[u8]) -> Result<Log, LogError> {
    let path = directory.join("log");
    std::fs::write(&path, content).unwrap();
    Log::open(&Input::File(path), &Known { source: Some("log".into()), is_finished: true })
}

/// Reads logs by a mapping; the fate of a log is that of its lines.
fn read(target: &Target, mapping: &Arc<Mapping>) -> Fates {
    let directory = tempfile::tempdir().unwrap();
    let clock = GatewayClock { ahead_ms: NOON_MS - GatewayClock::default().now_ms() };
    target.run(|bytes| {
        let Ok(log) = log(directory.path(), bytes) else { return "not gzip" };
        let Ok(mut reading) = Reading::begin(log, Arc::clone(mapping), Place::default(), clock) else { return "without its columns" };
        let (mut prepared, mut refused) = (0, 0);
        loop {
            let fate = match reading.next() {
                Ok(Some(fate)) => fate,
                Ok(None) => break,
                Err(_) => return "cannot be read to its end",
            };
            let line = reading.place().lines;
            match fate {
                Fate::Skipped => {}
                Fate::Refused(refusal) => {
                    refused += 1;
                    check_refusal(&refusal, line);
                }
                Fate::Attempt(attempt) => match reading.prepare(*attempt, &mut Vec::new()) {
                    Ok(event) => {
                        prepared += 1;
                        check_prepared(&event, line);
                    }
                    Err(refusal) => {
                        refused += 1;
                        check_refusal(&refusal, line);
                    }
                },
            }
        }
        match (prepared, refused) {
            (0, 0) => "nothing in it",
            (0, _) => "refused",
            (_, 0) => "imported",
            _ => "imported in part",
        }
    })
}

/// What is said of a line has none of it: no digits but those of limits.
fn check_refusal(refusal: &Refusal, line: u64) {
    let said = &refusal.description;
    assert!(refusal.line == line && !said.is_empty() && said.is_ascii(), "{refusal:?}");
    let long = |digits: &&str| digits.len() > 5;
    let digits = said.split(|character: char| !character.is_ascii_digit()).filter(long).collect::<Vec<_>>();
    assert!(digits.iter().all(|digits| ["999999999999", "3600000"].contains(digits)), "{refusal:?}");
}

/// What is sent is within the limits of the contract, and has no more of a card number than its beginning.
fn check_prepared(prepared: &Prepared, line: u64) {
    let event = Event::decode(prepared.event.clone()).unwrap();
    assert_eq!((event.sequence, prepared.line), (line, line));
    let is_name = |text: &str, most: usize, others: &[u8]| {
        text.len() <= most && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || others.contains(&byte))
    };
    assert!(!prepared.terminal.is_empty() && is_name(&prepared.terminal, 32, b"._-"));
    let outcome = event.outcome.unwrap();
    check_outcome(&outcome);
    for (text, most) in [
        (&outcome.merchant_id, 15),
        (&outcome.acquirer_id, 32),
        (&outcome.host_id, 64),
        (&outcome.retrieval_reference_number, 12),
        (&outcome.response_code, 16),
        (&outcome.order_number, 64),
    ] {
        assert!(is_name(text, most, b"._:/+-"), "{text}");
    }
    assert!(!outcome.merchant_id.is_empty() && outcome.diagnostic.len() <= 256);
    assert!(outcome.completion_time.is_some() && outcome.r#type != 0 && outcome.stage != 0);
    let profile = TerminalProfile::decode(prepared.profile.clone()).unwrap();
    assert!([&profile.model, &profile.region, &profile.carrier].into_iter().all(|text| is_name(text, 64, b"._:/+- ")));
}

fn check_outcome(outcome: &Outcome) {
    assert!(outcome.bin.is_empty() || ((6..=8).contains(&outcome.bin.len()) && outcome.bin.bytes().all(|byte| byte.is_ascii_digit())));
    assert!((0..=999_999_999_999).contains(&outcome.amount_minor));
    assert!(outcome.amount_minor == 0 || outcome.currency_code.len() == 3);
}

#[test]
fn of_separated_values_every_line_is_an_event_or_refused() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("mappings/unionpay-switch.toml");
    let fates = read(&target!(Bytes, "switch-log"), &Arc::new(Mapping::load(&path).unwrap()));
    fates.include(["imported", "imported in part", "refused", "without its columns"]);
}

#[test]
fn of_objects_every_line_is_an_event_or_refused() {
    let fates = read(&target!(Text, "object-log"), &Arc::new(Mapping::parse(OBJECTS).unwrap()));
    fates.include(["imported", "imported in part", "refused"]);
}

#[test]
fn by_a_mapping_that_is_taken_a_card_number_goes_nowhere() {
    let fates = target!(Text, "mapping").run(|bytes| {
        let mapping = match Mapping::parse(std::str::from_utf8(bytes).unwrap()) {
            Ok(mapping) => mapping,
            Err(reason) => {
                assert!(!reason.is_empty());
                return "refused";
            }
        };
        let texts: Vec<&str> = mapping.columns.iter().map(|(_, field)| if field == "outcome.bin" { CARD } else { "1790000000" }).collect();
        let cells = Cells::of(&texts);
        match mapping.map(&cells) {
            Ok(Mapped::Outcome(attempt)) => {
                check_outcome(&attempt.outcome);
                let told = format!("{:?} {:?} {:?}", mapping.told(&attempt), attempt.outcome, attempt.profile);
                assert!(!told.contains(CARD), "{told}");
                "an outcome"
            }
            Ok(Mapped::Skipped) => "skipped",
            Err(wrong) => {
                assert!(!wrong.field.is_empty() && !wrong.description.contains("1790000000"), "{wrong:?}");
                "a wrong line"
            }
        }
    });
    fates.include(["refused", "an outcome"]);
}

#[test]
fn a_state_file_says_a_place_in_the_log_or_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let content = "one\ntwo\nthree\n".repeat(10);
    let path = directory.path().join("state");
    let fates = target!(Text, "state").run(|bytes| {
        std::fs::write(&path, bytes).unwrap();
        let log = log(directory.path(), content.as_bytes()).unwrap();
        match StateFile::at(path.clone()).place_of(&log, Some("log")) {
            Ok(place) if place == Place::default() => "from the first line",
            Ok(place) => {
                assert!(place.bytes <= content.len() as u64);
                "a place"
            }
            Err(StateError::Format { .. }) => "no state",
            Err(StateError::Shorter { .. } | StateError::Other { .. }) => "of another log",
            Err(error) => panic!("{error:?}"),
        }
    });
    fates.include(["from the first line", "a place", "no state", "of another log"]);
}
