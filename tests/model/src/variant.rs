//! The protocol as it is, and with one thing left out: so that the check is known to be able to fail.

use crate::properties;

/// What is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// Nothing: the protocol as it is.
    Real,
    /// A repeat does not ask which rows are there; it inserts all of them, and takes the server's word.
    TrustsTokens,
    /// A repeat takes the server's word for what it keeps for drill-downs.
    TrustsTokensOfKept,
    /// Nothing is committed before a batch is inserted.
    NoIntent,
    /// A repeat begins without a commit: so does one of a process that was given up before it asked what is committed.
    Unclaimed,
    /// Batches of an earlier log are counted without a commit: so are those that a successor stores just now.
    UnclaimedLog,
    /// A repeat may end elsewhere than the batch that was begun.
    RepeatsFreely,
    /// What was seen is loaded from all rows, those of the batch to be repeated included.
    FindsItself,
    /// The broker takes a commit also from whom the group has given up.
    Unfenced,
    /// A worker commits also when its process lost the partition and has joined the group again.
    Unbound,
    /// A repeat counts what it has judged itself.
    CountsFromMemory,
    /// A repeat has tokens of its own.
    OtherToken,
    /// A process that was stopped goes on as if no time had passed, and the server takes what it sends.
    NeverLate,
    /// A worker that is waiting when its partition is taken away may still do what follows on the answer, until it waits again.
    EndsLate,
    /// Not broken, another way: both of the above, but where the clock is looked at before sums are sent, the intent is committed once more. Whoever can
    /// commit it has had no successor yet, so the rows are its own.
    CommitsForClock,
    /// Not of the protocol: while nobody works and nothing is under way, somebody sets the committed offset back, and with that what was begun is forgotten.
    /// If half of it was stored, its other half is lost.
    SetByHand,
    /// The server forgets a token while someone may still insert with it: it takes what comes later than it was wanted (`Server::deadline` in the store).
    ShortWindow,
}

/// How far is looked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Records that are there at the beginning.
    pub records: u8,
    /// Records that arrive later, at any time.
    pub later_records: u8,
    /// Processes that end or are given up, servers that are killed, connections that break: so many in all.
    pub faults: u8,
    /// Whether the server may forget the tokens of batches that nobody can insert any more.
    pub forgets: bool,
    /// Whether nothing is committed at the beginning.
    pub is_fresh: bool,
}

impl Bounds {
    const NONE: Bounds = Bounds { records: 0, later_records: 0, faults: 0, forgets: false, is_fresh: false };
    /// What every `cargo test` looks at.
    pub const SMALL: [Bounds; 3] = [
        Bounds { records: 2, faults: 2, is_fresh: true, ..Bounds::NONE },
        Bounds { records: 2, later_records: 1, faults: 2, ..Bounds::NONE },
        Bounds { records: 2, later_records: 0, faults: 2, forgets: true, ..Bounds::NONE },
    ];
    /// What `make model` looks at.
    pub const LARGE: [Bounds; 4] = [
        Bounds { records: 2, later_records: 1, faults: 2, is_fresh: true, ..Bounds::NONE },
        Bounds { records: 3, later_records: 1, faults: 2, ..Bounds::NONE },
        Bounds { records: 2, later_records: 0, faults: 3, forgets: true, ..Bounds::NONE },
        Bounds { records: 4, later_records: 1, faults: 1, ..Bounds::NONE },
    ];
    /// Where a counterexample is looked for.
    pub const LEAST: Bounds = Bounds { records: 2, later_records: 0, faults: 2, ..Bounds::NONE };
}

impl Variant {
    /// How far has to be looked until something is found to be broken.
    #[must_use]
    pub fn least(self) -> Bounds {
        Bounds { is_fresh: self == Variant::UnclaimedLog, ..Bounds::LEAST }
    }

    /// Those that break something, and what: one of the properties.
    pub const BROKEN: [(Variant, &'static str); 15] = [
        (Variant::TrustsTokens, properties::NONE_LOST),
        (Variant::TrustsTokensOfKept, properties::KEPT_AS_STORED),
        (Variant::NoIntent, properties::STORED_ONCE),
        (Variant::Unclaimed, properties::NONE_LOST),
        (Variant::UnclaimedLog, properties::KEPT_AS_STORED),
        (Variant::RepeatsFreely, properties::STORED_ONCE),
        (Variant::FindsItself, properties::NONE_LOST),
        (Variant::Unfenced, properties::STORED_ONCE),
        (Variant::Unbound, properties::STORED_ONCE),
        (Variant::CountsFromMemory, properties::COUNTED_AS_STORED),
        (Variant::OtherToken, properties::STORED_ONCE),
        (Variant::NeverLate, properties::COUNTED_AS_STORED),
        (Variant::EndsLate, properties::KEPT_AS_STORED),
        (Variant::SetByHand, properties::NONE_LOST),
        (Variant::ShortWindow, properties::STORED_ONCE),
    ];
}
