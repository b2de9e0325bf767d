//! What an outcome shows beside code, condition and stage: a fixed vocabulary of facts, each with a threshold and where it is from. Rule sets say what
//! they change (`[[evidence]]`), `crates/verdict/src/words/facts.rs` says them in words.
//!
//! What was not measured is no fact, and zero neither: it is how an absent number is stored, and a judgement of stored rows has to be that of the
//! outcome. What contradicts itself or is beyond the contract's limits is no fact either.

use std::fmt;

use faultline_proto::outcome::v1::{EmvEvidence, Outcome, ReaderHistory, Stage, StageLatencies};

/// Weak wherever it is measured: below the last level of GSM (-107) and Wi-Fi (-88), and below "good" of LTE (-108) and WCDMA (-95) in Android.
pub(crate) const WEAK_DBM: i32 = -108;
/// Good wherever it is measured: "great" for GSM (-89), LTE (-98) and WCDMA (-85) in Android, and the middle level of Wi-Fi (-77).
pub(crate) const GOOD_DBM: i32 = -77;
/// Least that the contract takes.
const LEAST_DBM: i32 = -150;
/// A packet that is lost while a connection is set up is sent again after a second (RFC 6298, section 2): so long means that one was lost, or that
/// the way is as slow. Half of it means neither.
pub(crate) const SLOW_MS: u32 = 1000;
pub(crate) const QUICK_MS: u32 = 500;
/// Two round trips (RFC 5246) or one (RFC 8446), and what an old terminal computes.
pub(crate) const SLOW_TLS_MS: u32 = 3000;
/// Switches give issuers up after 15 to 30 s and say so: a host that works would have answered by then.
pub(crate) const LONG_WAIT_MS: u32 = 20_000;
/// One bad card is one sale, however often it is tried; three are not three bad cards, where one read in ten fails.
const SEVERAL_SALES: u32 = 3;
const OFTEN: u32 = 10;
/// In a row, over at least two sales.
const IN_A_ROW: u32 = 3;
/// One sale in fifty at most, of so many reads that more would show.
const SELDOM: u32 = 50;
const ENOUGH_READS: u32 = 20;
/// The next customer's card.
pub(crate) const SOON_MS: u64 = 600_000;
/// Limits of the contract.
const MOST_MS: u32 = 3_600_000;
const MOST_READS: u32 = 1_000_000;
const MOST_ATTEMPTS: u32 = 1000;

macro_rules! facts {
    ($($(#[doc = $doc:literal])* $name:ident = $id:literal from $source:literal: $takes:literal,)*) => {
        /// Something that an outcome shows.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Fact {
            $($(#[doc = $doc])* $name,)*
        }

        impl Fact {
            /// All of them, in the order in which they are told.
            pub const ALL: [Fact; [$($id),*].len()] = [$(Fact::$name),*];

            /// As rule sets and the contract's message write it: `weak_signal`.
            #[must_use]
            pub fn id(self) -> &'static str {
                match self { $(Fact::$name => $id,)* }
            }

            /// What of an outcome it takes, for people.
            #[must_use]
            pub fn takes(self) -> &'static str {
                match self { $(Fact::$name => $takes,)* }
            }

            /// Where its threshold or meaning is from.
            #[must_use]
            pub fn source(self) -> &'static str {
                match self { $(Fact::$name => $source,)* }
            }
        }
    };
}

facts! {
    /// The signal was weak.
    WeakSignal = "weak_signal" from "Android's signal levels: below the last of GSM and Wi-Fi, below good of LTE and WCDMA": "signal of -108 dBm or less",
    /// The signal was good.
    GoodSignal = "good_signal" from "Android's signal levels: great for GSM, LTE and WCDMA, the middle one of Wi-Fi": "signal of -77 dBm or more",
    /// The host's name took long to resolve.
    SlowNameResolution = "slow_name_resolution" from "own: an answer comes within tens of milliseconds, unless a question was lost": "name resolved in 1 s or more",
    /// The connection was set up quickly.
    QuickConnect = "quick_connect" from "RFC 6298, section 2: no packet was lost, or it would have taken a second": "connected in 500 ms or less",
    /// The connection took long to set up.
    SlowConnect = "slow_connect" from "RFC 6298, section 2: a packet that is lost is sent again after a second": "connected in 1 s or more",
    /// The TLS handshake took long.
    SlowTls = "slow_tls" from "RFC 8446: one or two round trips, and what an old terminal computes": "TLS handshake of 3 s or more",
    /// The request was sent whole, and not answered.
    SentWhole = "sent_whole" from "the contract: what it says of the stage": "ended at wait or reversal, without a code",
    /// Nobody answered for long.
    LongWait = "long_wait" from "own: switches give issuers up after 15 to 30 s, and say so": "waited 20 s or more, without a code",
    /// It was tried before.
    RepeatedAttempt = "repeated_attempt" from "the contract": "second or later attempt at the same sale",
    /// The chip lacks data.
    ChipDataMissing = "chip_data_missing" from "EMV Book 3, annex C5: byte 1, bit 6": "TVR: ICC data missing",
    /// The chip did not prove that it is what it says.
    CardAuthenticationFailed = "card_authentication_failed" from "EMV Book 3, annex C5: byte 1, bits 7, 4 and 3": "TVR: SDA, DDA or CDA failed",
    /// The chip says that it is past its date.
    CardExpired = "card_expired" from "EMV Book 3, annex C5: byte 2, bit 7": "TVR: expired application",
    /// The chip says that it does not hold yet.
    CardNotYetValid = "card_not_yet_valid" from "EMV Book 3, annex C5: byte 2, bit 6": "TVR: application not yet effective",
    /// The chip does not take this kind of payment.
    ServiceNotAllowed = "service_not_allowed" from "EMV Book 3, annex C5: byte 2, bit 5": "TVR: requested service not allowed for card product",
    /// The cardholder was not verified.
    VerificationFailed = "verification_failed" from "EMV Book 3, annex C5: byte 3, bit 8": "TVR: cardholder verification was not successful",
    /// No PIN tries are left.
    PinTriesExceeded = "pin_tries_exceeded" from "EMV Book 3, annex C5: byte 3, bit 6": "TVR: PIN try limit exceeded",
    /// There is no PIN pad that works.
    PinPadAbsent = "pin_pad_absent" from "EMV Book 3, annex C5: byte 3, bit 5": "TVR: PIN entry required and PIN pad not present or not working",
    /// The PIN was not entered.
    PinNotEntered = "pin_not_entered" from "EMV Book 3, annex C5: byte 3, bit 4": "TVR: PIN entry required, PIN pad present, but PIN was not entered",
    /// The chip did not accept the issuer's answer.
    IssuerAuthenticationFailed = "issuer_authentication_failed" from "EMV Book 3, annex C5: byte 5, bit 7": "TVR: issuer authentication failed",
    /// The chip did not carry out the issuer's commands.
    ScriptFailed = "script_failed" from "EMV Book 3, annex C5: byte 5, bits 6 and 5": "TVR: script processing failed",
    /// The chip answered, so it has contact.
    ChipAnswered = "chip_answered" from "ISO/IEC 7816-4, section 5.6": "any status word",
    /// The chip's PIN is blocked.
    PinBlocked = "pin_blocked" from "ISO/IEC 7816-4, section 5.6; EMV Book 3, VERIFY": "last status word 6983, 6984 or 63C0",
    /// The chip refused a PIN.
    PinWrong = "pin_wrong" from "ISO/IEC 7816-4, section 5.6; EMV Book 3, VERIFY": "last status word 63C1 to 63CF",
    /// The chip, or its application, is blocked.
    ChipBlocked = "chip_blocked" from "EMV Book 1, SELECT: 6A81 card blocked, 6283 application blocked": "last status word 6283 or 6A81",
    /// The chip has no application that the terminal asked for.
    ApplicationNotFound = "application_not_found" from "ISO/IEC 7816-4, section 5.6; EMV Book 1, SELECT": "last status word 6A82",
    /// The chip's own conditions are not met.
    ConditionsNotMet = "conditions_not_met" from "ISO/IEC 7816-4, section 5.6": "last status word 6985",
    /// The chip failed by itself.
    ChipError = "chip_error" from "ISO/IEC 7816-4, section 5.6: execution error, memory failure, no precise diagnosis": "last status word 64xx, 65xx or 6Fxx",
    /// The chip does not understand the terminal.
    CommandRefused = "command_refused" from "ISO/IEC 7816-4, section 5.6: wrong length, parameters, instruction or class": "last status word 67xx, 6Bxx, 6Dxx or 6Exx",
    /// The stripe was taken, since the chip could not be read.
    Fallback = "fallback" from "the contract": "fallback from chip to magnetic stripe",
    /// The reader fails with one card after another.
    ReaderFailsOften = "reader_fails_often" from "own: with one bad card in a hundred, three among thirty reads come less than one day in a hundred": "failed reads in 3 sales or more, and one read in ten or more, and not reader_reads_well",
    /// The reader fails now, with different cards.
    ReaderFailsInARow = "reader_fails_in_a_row" from "own: one bad card tried again is one sale": "3 failed reads in a row or more, and 2 sales or more",
    /// The reader reads nearly everything.
    ReaderReadsWell = "reader_reads_well" from "own: of so many reads more failures would show": "20 reads or more, and failures in one sale of fifty reads or fewer",
    /// The reader read another card well soon after it had failed before.
    ReaderReadSince = "reader_read_since" from "own: the next customer": "a good read within 10 min of the failure before",
}

/// The facts of one outcome.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Facts(u64);

impl Facts {
    /// What an outcome shows.
    #[must_use]
    pub fn of(outcome: &Outcome) -> Facts {
        let mut facts = Facts::default();
        if let Some(dbm) = signal_dbm(outcome) {
            facts.add_if(dbm <= WEAK_DBM, Fact::WeakSignal);
            facts.add_if(dbm >= GOOD_DBM, Fact::GoodSignal);
        }
        facts.of_way(outcome);
        facts.add_if((2..=MOST_ATTEMPTS).contains(&outcome.attempt), Fact::RepeatedAttempt);
        if let Some(emv) = &outcome.emv {
            facts.of_emv(emv);
        }
        if let Some(history) = outcome.reader_history.as_ref().filter(|history| is_consistent(history)) {
            facts.of_reader(history);
        }
        facts
    }

    /// The way to the host and back.
    fn of_way(&mut self, outcome: &Outcome) {
        let stage = outcome.stage();
        let unanswered = matches!(stage, Stage::Wait | Stage::Reversal) && outcome.response_code.is_empty();
        self.add_if(unanswered, Fact::SentWhole);
        let Some(latencies) = &outcome.latencies else { return };
        // Where it ended, the time is that of waiting in vain.
        let took = |ms: Option<u32>, of: Stage| if stage > of && stage != Stage::OfflineDecision { measured(ms) } else { None };
        let StageLatencies { dns_ms, connect_ms, tls_ms, wait_ms, .. } = *latencies;
        self.add_if(took(dns_ms, Stage::Dns).is_some_and(|ms| ms >= SLOW_MS), Fact::SlowNameResolution);
        if let Some(ms) = took(connect_ms, Stage::Connect) {
            self.add_if(ms <= QUICK_MS, Fact::QuickConnect);
            self.add_if(ms >= SLOW_MS, Fact::SlowConnect);
        }
        self.add_if(took(tls_ms, Stage::Tls).is_some_and(|ms| ms >= SLOW_TLS_MS), Fact::SlowTls);
        self.add_if(unanswered && measured(wait_ms).is_some_and(|ms| ms >= LONG_WAIT_MS), Fact::LongWait);
    }

    fn of_emv(&mut self, emv: &EmvEvidence) {
        if let Ok([one, two, three, _, five]) = <[u8; 5]>::try_from(&emv.terminal_verification_results[..]) {
            for (byte, bits, fact) in [
                (one, 0x20, Fact::ChipDataMissing),
                (one, 0x40 | 0x08 | 0x04, Fact::CardAuthenticationFailed),
                (two, 0x40, Fact::CardExpired),
                (two, 0x20, Fact::CardNotYetValid),
                (two, 0x10, Fact::ServiceNotAllowed),
                (three, 0x80, Fact::VerificationFailed),
                (three, 0x20, Fact::PinTriesExceeded),
                (three, 0x10, Fact::PinPadAbsent),
                (three, 0x08, Fact::PinNotEntered),
                (five, 0x40, Fact::IssuerAuthenticationFailed),
                (five, 0x20 | 0x10, Fact::ScriptFailed),
            ] {
                self.add_if(byte & bits != 0, fact);
            }
        }
        self.add_if(emv.status_words.iter().any(|word| is_status_word(*word)), Fact::ChipAnswered);
        if let Some(word) = last_status_word(emv) {
            for (fact, is_it) in [
                (Fact::PinBlocked, matches!(word, 0x6983 | 0x6984 | 0x63C0)),
                (Fact::PinWrong, matches!(word, 0x63C1..=0x63CF)),
                (Fact::ChipBlocked, matches!(word, 0x6283 | 0x6A81)),
                (Fact::ApplicationNotFound, word == 0x6A82),
                (Fact::ConditionsNotMet, word == 0x6985),
                (Fact::ChipError, matches!(word, 0x6400..=0x65FF | 0x6F00..=0x6FFF)),
                (Fact::CommandRefused, matches!(word, 0x6700..=0x67FF | 0x6B00..=0x6BFF | 0x6D00..=0x6EFF)),
            ] {
                self.add_if(is_it, fact);
            }
        }
        self.add_if(emv.fallback, Fact::Fallback);
    }

    fn of_reader(&mut self, history: &ReaderHistory) {
        let ReaderHistory { reads, failures, failed_sales, consecutive_failures, next_good_read_ms } = *history;
        // Terminals that do not count sales tell failures.
        let failing = if failed_sales > 0 { failed_sales } else { failures };
        let reads_well = reads >= ENOUGH_READS && failing * SELDOM <= reads.max(SELDOM);
        self.add_if(!reads_well && failed_sales >= SEVERAL_SALES && failures * OFTEN >= reads, Fact::ReaderFailsOften);
        self.add_if(consecutive_failures >= IN_A_ROW && failed_sales >= 2, Fact::ReaderFailsInARow);
        self.add_if(reads_well, Fact::ReaderReadsWell);
        self.add_if(next_good_read_ms.is_some_and(|ms| (1..=SOON_MS).contains(&ms)), Fact::ReaderReadSince);
    }

    fn add_if(&mut self, holds: bool, fact: Fact) {
        self.0 |= u64::from(holds) << fact.number();
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether it is among them.
    #[must_use]
    pub fn has(self, fact: Fact) -> bool {
        self.has_all(Facts(1 << fact.number()))
    }

    /// Each of them, in the order in which they are told.
    pub fn iter(self) -> impl Iterator<Item = Fact> {
        Fact::ALL.into_iter().filter(move |fact| self.has(*fact))
    }

    pub(crate) fn has_all(self, others: Facts) -> bool {
        self.0 & others.0 == others.0
    }

    pub(crate) fn has_any(self, others: Facts) -> bool {
        self.0 & others.0 != 0
    }
}

impl Fact {
    /// Facts of which an outcome shows at most one.
    pub(crate) const EXCLUSIVE: [&[Fact]; 5] = [
        &[Fact::WeakSignal, Fact::GoodSignal],
        &[Fact::QuickConnect, Fact::SlowConnect],
        &[
            Fact::PinBlocked,
            Fact::PinWrong,
            Fact::ChipBlocked,
            Fact::ApplicationNotFound,
            Fact::ConditionsNotMet,
            Fact::ChipError,
            Fact::CommandRefused,
        ],
        &[Fact::ReaderFailsOften, Fact::ReaderReadsWell],
        &[Fact::ReaderFailsInARow, Fact::ReaderReadSince],
    ];

    /// Whether it says that something is as it should be, and not that something is wrong.
    #[must_use]
    pub fn is_in_order(self) -> bool {
        matches!(self, Fact::GoodSignal | Fact::QuickConnect | Fact::ChipAnswered | Fact::ReaderReadsWell | Fact::ReaderReadSince)
    }

    fn number(self) -> u32 {
        u32::from(self as u8)
    }
}

const _: () = assert!(Fact::ALL.len() <= 64);

impl FromIterator<Fact> for Facts {
    fn from_iter<I: IntoIterator<Item = Fact>>(facts: I) -> Facts {
        Facts(facts.into_iter().fold(0, |all, fact| all | 1 << fact.number()))
    }
}

impl fmt::Debug for Facts {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_set().entries(self.iter().map(Fact::id)).finish()
    }
}

/// As rule sets write them: `weak_signal, sent_whole`.
impl fmt::Display for Facts {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.iter().map(Fact::id).collect();
        formatter.write_str(&names.join(", "))
    }
}

/// In dBm, where it was measured.
pub(crate) fn signal_dbm(outcome: &Outcome) -> Option<i32> {
    outcome.signal_dbm.filter(|dbm| (LEAST_DBM..0).contains(dbm))
}

/// In milliseconds, where it was measured.
pub(crate) fn measured(ms: Option<u32>) -> Option<u32> {
    ms.filter(|ms| (1..=MOST_MS).contains(ms))
}

/// The last word that a chip said.
pub(crate) fn last_status_word(emv: &EmvEvidence) -> Option<u32> {
    emv.status_words.last().copied().filter(|word| is_status_word(*word))
}

fn is_status_word(word: u32) -> bool {
    (0x6000..=0x9FFF).contains(&word)
}

/// Whether it can be: no more failures than reads, no more sales than failures, no good read behind several failures in a row.
fn is_consistent(history: &ReaderHistory) -> bool {
    let ReaderHistory { reads, failures, failed_sales, consecutive_failures, next_good_read_ms } = *history;
    reads <= MOST_READS
        && failures <= reads
        && failed_sales <= failures
        && consecutive_failures <= failures
        && (consecutive_failures < 2 || next_good_read_ms.is_none_or(|ms| ms == 0))
}

#[cfg(test)]
mod tests {
    use faultline_proto::outcome::v1::TerminalCondition;

    use super::*;

    fn shown(outcome: Outcome) -> String {
        Facts::of(&outcome).to_string()
    }

    fn by_signal(dbm: i32) -> String {
        shown(Outcome { signal_dbm: Some(dbm), ..Outcome::default() })
    }

    #[test]
    fn signals_are_weak_good_or_neither() {
        let expected = [(-150, "weak_signal"), (-108, "weak_signal"), (-107, ""), (-78, ""), (-77, "good_signal"), (-1, "good_signal")];
        for (dbm, expected) in expected {
            assert_eq!(by_signal(dbm), expected, "{dbm}");
        }
        // Absent, and beyond the limits.
        for none in [0, -151, 20, i32::MIN, i32::MAX] {
            assert_eq!(by_signal(none), "", "{none}");
        }
    }

    #[test]
    fn a_stage_took_long_only_if_it_was_over() {
        let latencies = |ms: u32| StageLatencies {
            dns_ms: Some(ms),
            connect_ms: Some(ms),
            tls_ms: Some(ms),
            wait_ms: Some(ms),
            ..StageLatencies::default()
        };
        let of = |stage: Stage, ms| shown(Outcome { stage: stage.into(), latencies: Some(latencies(ms)), ..Outcome::default() });
        assert_eq!(of(Stage::Wait, 20_000), "slow_name_resolution, slow_connect, slow_tls, sent_whole, long_wait");
        assert_eq!(of(Stage::Wait, 500), "quick_connect, sent_whole");
        assert_eq!(of(Stage::Wait, 501), "sent_whole");
        assert_eq!(of(Stage::Connect, 20_000), "slow_name_resolution");
        assert_eq!(of(Stage::Dns, 20_000), "");
        assert_eq!(of(Stage::HostDecision, 3000), "slow_name_resolution, slow_connect, slow_tls");
        assert_eq!(of(Stage::OfflineDecision, 3000), "");
        for none in [0, 3_600_001, u32::MAX] {
            assert_eq!(of(Stage::Wait, none), "sent_whole", "{none}");
        }
        let answered = Outcome { stage: Stage::Wait.into(), response_code: "68".into(), ..Outcome::default() };
        assert_eq!(shown(answered), "");
    }

    #[test]
    fn what_the_chip_says_is_read_bit_by_bit() {
        let by_tvr = |tvr: &[u8]| {
            let emv = EmvEvidence { terminal_verification_results: tvr.to_vec().into(), ..EmvEvidence::default() };
            shown(Outcome { emv: Some(emv), ..Outcome::default() })
        };
        assert_eq!(by_tvr(&[0x20, 0, 0, 0, 0]), "chip_data_missing");
        for bit in [0x40, 0x08, 0x04] {
            assert_eq!(by_tvr(&[bit, 0, 0, 0, 0]), "card_authentication_failed");
        }
        assert_eq!(by_tvr(&[0, 0x70, 0, 0, 0]), "card_expired, card_not_yet_valid, service_not_allowed");
        assert_eq!(by_tvr(&[0, 0, 0xB8, 0, 0]), "verification_failed, pin_tries_exceeded, pin_pad_absent, pin_not_entered");
        assert_eq!(by_tvr(&[0, 0, 0, 0, 0x60]), "issuer_authentication_failed, script_failed");
        // Offline authentication not performed, an online PIN, the floor limit: nothing is wrong with them.
        assert_eq!(by_tvr(&[0x80, 0, 0x04, 0xF8, 0x80]), "");
        for garbage in [&[][..], &[0xFF; 4], &[0xFF; 6]] {
            assert_eq!(by_tvr(garbage), "");
        }
        let by_words = |words: &[u32]| {
            let emv = EmvEvidence { status_words: words.to_vec(), ..EmvEvidence::default() };
            shown(Outcome { emv: Some(emv), ..Outcome::default() })
        };
        // A chip without a directory answers 6A82 to the first question, and to the last in vain.
        assert_eq!(by_words(&[0x6A82, 0x9000]), "chip_answered");
        assert_eq!(by_words(&[0x9000, 0x6A82]), "chip_answered, application_not_found");
        for (word, fact) in [
            (0x6983, "pin_blocked"),
            (0x63C0, "pin_blocked"),
            (0x63C2, "pin_wrong"),
            (0x6283, "chip_blocked"),
            (0x6985, "conditions_not_met"),
            (0x6581, "chip_error"),
            (0x6F00, "chip_error"),
            (0x6D00, "command_refused"),
        ] {
            assert_eq!(by_words(&[word]), format!("chip_answered, {fact}"));
        }
        for garbage in [&[][..], &[0], &[0x1_6F00], &[u32::MAX]] {
            assert_eq!(by_words(garbage), "");
        }
    }

    #[test]
    fn a_reader_is_known_by_its_day() {
        let by = |reads, failures, failed_sales, consecutive_failures, next_good_read_ms| {
            let history = ReaderHistory { reads, failures, failed_sales, consecutive_failures, next_good_read_ms };
            shown(Outcome { reader_history: Some(history), ..Outcome::default() })
        };
        assert_eq!(by(30, 4, 3, 1, None), "reader_fails_often");
        // One bad card, however often it is tried.
        assert_eq!(by(50, 5, 1, 5, None), "reader_reads_well");
        assert_eq!(by(30, 4, 4, 3, None), "reader_fails_often, reader_fails_in_a_row");
        assert_eq!(by(200, 4, 4, 1, Some(42_000)), "reader_reads_well, reader_read_since");
        assert_eq!(by(200, 5, 5, 1, Some(86_400_000)), "");
        assert_eq!(by(19, 0, 0, 0, None), "");
        // Three bad cards, tried again and again.
        assert_eq!(by(150, 15, 3, 1, None), "reader_reads_well");
        // Without sales, failures are told.
        assert_eq!(by(200, 4, 0, 0, None), "reader_reads_well");
        assert_eq!(by(200, 5, 0, 0, None), "");
        for garbage in [by(0, 0, 0, 0, None), by(3, 4, 4, 3, None), by(30, 3, 4, 1, None), by(30, 3, 3, 4, None), by(30, 4, 4, 3, Some(1))]
        {
            assert_eq!(garbage, "");
        }
        assert_eq!(by(u32::MAX, u32::MAX, u32::MAX, u32::MAX, None), "");
        assert_eq!(by(1_000_000, 1_000_000, 1_000_000, 0, Some(0)), "reader_fails_often");
    }

    #[test]
    fn what_is_absent_is_no_fact() {
        assert!(Facts::of(&Outcome::default()).is_empty());
        let empty = Outcome {
            stage: Stage::CardRead.into(),
            terminal_condition: TerminalCondition::ChipRead.into(),
            emv: Some(EmvEvidence::default()),
            latencies: Some(StageLatencies::default()),
            reader_history: Some(ReaderHistory::default()),
            ..Outcome::default()
        };
        assert!(Facts::of(&empty).is_empty());
        for (attempt, expected) in [(0, ""), (1, ""), (2, "repeated_attempt"), (1001, "")] {
            assert_eq!(shown(Outcome { attempt, ..Outcome::default() }), expected);
        }
    }

    #[test]
    fn facts_have_names_and_reasons() {
        let mut names: Vec<&str> = Fact::ALL.iter().map(|fact| fact.id()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Fact::ALL.len());
        assert!(Fact::ALL.iter().all(|fact| !fact.takes().is_empty() && !fact.source().is_empty()));
        let all: Facts = Fact::ALL.into_iter().collect();
        assert!(Fact::ALL.iter().all(|fact| all.has(*fact)) && all.iter().count() == Fact::ALL.len());
    }
}
