//! Tries a decoder with whatever may come from outside: inputs that are kept in the repository, and what becomes of them when they are changed.
//!
//! ```text
//! kept inputs ──┬───────────────────────────────────────▶ read ─▶ a fate, which is counted; a panic is a finding
//!               └─▶ one of them, changed up to 8 times ──▶
//!   any bytes ───────────────────────────────────────────▶
//! ```
//!
//! A target is a unit test in a module `fuzz` beside the decoder. Its inputs are files in `fuzz/` of the decoder's crate, and hold what the decoder reads, as it reads it.
//! In `make test` each target is tried with the same few thousand inputs every time. `make fuzz` goes on with others for as long as it is told. An input that
//! fails is made as small as may be and put among those that are kept, so it is tried first from then on.

#![expect(clippy::panic, clippy::print_stdout, reason = "only tests use it: one that fails panics, and what one prints is shown with that")]

mod edits;
mod message;
mod record;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestError, TestRunner};

use crate::edits::Edit;
pub use crate::record::{Header, Record};

/// Inputs in `make test`, and in each round of `make fuzz`.
const INPUTS: u32 = 2000;
/// What they are drawn by in `make test`. `PROPTEST_RNG_SEED` is another.
const SEED: u64 = 1;
/// Most changes of one input, and most attempts to make one that fails smaller.
const MOST_EDITS: usize = 8;
const MOST_SMALLER: u32 = 20_000;
/// How long `make fuzz` tries each target: `60s`.
const TIME: &str = "FAULTLINE_FUZZ_TIME";

/// What a decoder reads, which decides how inputs are changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Text in UTF-8, which it stays: changed by lines and words too.
    Text,
    /// Bytes.
    Bytes,
    /// A message of Protocol Buffers: changed field by field too, at any depth, with the lengths around it right again.
    Message,
}

/// A decoder's inputs.
#[derive(Clone, Debug)]
pub struct Target {
    form: Form,
    directory: PathBuf,
}

/// The target whose inputs are in `fuzz/<name>` of the crate that this is written in: `target!(Message, "batch")`.
#[macro_export]
macro_rules! target {
    ($form:ident, $name:literal) => {
        $crate::Target::new($crate::Form::$form, concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/", $name))
    };
}

impl Target {
    /// A target whose inputs are the files of a directory.
    #[must_use]
    pub fn new(form: Form, directory: &str) -> Target {
        Target { form, directory: directory.into() }
    }

    /// Reads one input after the other; `read` says in a word what became of it, and panics where that must not be.
    ///
    /// # Panics
    /// At the first input at which `read` does.
    pub fn run(&self, read: impl Fn(&[u8]) -> &'static str) -> Fates {
        let kept = self.kept();
        let fates = RefCell::new(BTreeMap::new());
        let count = |input: &[u8]| *fates.borrow_mut().entry(read(input)).or_insert(0) += 1;
        for (path, input) in &kept {
            println!("reading {}", path.display());
            count(input);
        }
        let inputs = self.inputs(kept.into_iter().map(|(_, input)| input).collect());
        let end = time().map(|time| Instant::now() + time);
        loop {
            let mut config = Config { cases: INPUTS, max_shrink_iters: MOST_SMALLER, failure_persistence: None, ..Config::default() };
            config.rng_seed = match (end, config.rng_seed) {
                (Some(_), _) => RngSeed::Random,
                (None, RngSeed::Random) => RngSeed::Fixed(SEED),
                (None, fixed) => fixed,
            };
            let tried = TestRunner::new(config).run(&inputs, |input| {
                count(&input.0);
                Ok(())
            });
            match tried {
                Ok(()) => {}
                Err(TestError::Fail(reason, input)) => panic!("{reason}\ninput: {input:?}\nkept as {}", self.keep(&input.0).display()),
                Err(TestError::Abort(reason)) => panic!("{reason}"),
            }
            if end.is_none_or(|end| Instant::now() >= end) {
                break;
            }
        }
        let fates = Fates(fates.into_inner());
        println!("{}: {fates}", self.directory.display());
        fates
    }

    /// The inputs that are kept, by name.
    fn kept(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let unreadable = |path: &Path, error| -> ! { panic!("cannot read {}: {error}", path.display()) };
        let entries = std::fs::read_dir(&self.directory).unwrap_or_else(|error| unreadable(&self.directory, error));
        let mut paths: Vec<PathBuf> = entries.filter_map(Result::ok).map(|entry| entry.path()).collect();
        paths.sort();
        assert!(!paths.is_empty(), "{} is empty", self.directory.display());
        let read = |path: PathBuf| match std::fs::read(&path) {
            Ok(input) => (path, input),
            Err(error) => unreadable(&path, error),
        };
        paths.into_iter().map(read).collect()
    }

    /// Inputs like those that are kept, and others.
    fn inputs(&self, kept: Vec<Vec<u8>>) -> impl Strategy<Value = Input> + use<> {
        let (form, others) = (self.form, kept.clone());
        let edits = |most| proptest::collection::vec(Edit::any(form), 1..=most);
        let changed = (proptest::sample::select(kept), prop_oneof![2 => edits(1), 1 => edits(2), 1 => edits(MOST_EDITS)]);
        let changed = changed.prop_map(move |(input, edits)| edits.iter().fold(input, |input, edit| edit.apply(&input, &others)));
        let input = prop_oneof![15 => changed, 1 => proptest::collection::vec(any::<u8>(), 0..64)];
        input.prop_map(move |input| match form {
            Form::Text => Input(String::from_utf8_lossy(&input).into_owned().into_bytes()),
            Form::Bytes | Form::Message => Input(input),
        })
    }

    fn keep(&self, input: &[u8]) -> PathBuf {
        let mut hasher = DefaultHasher::new();
        input.hash(&mut hasher);
        let path = self.directory.join(format!("found-{:016x}", hasher.finish()));
        if let Err(error) = std::fs::write(&path, input) {
            println!("cannot write {}: {error}", path.display());
        }
        path
    }
}

#[expect(clippy::disallowed_methods, reason = "tests have no configuration")]
fn time() -> Option<Duration> {
    let text = std::env::var(TIME).ok()?;
    Some(humantime::parse_duration(&text).unwrap_or_else(|error| panic!("{TIME} is `{text}`: {error}")))
}

/// An input, shown as text where it is some.
#[derive(Clone)]
struct Input(Vec<u8>);

impl fmt::Debug for Input {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "b\"{}\"", self.0.escape_ascii())
    }
}

/// What became of the inputs: how many of each fate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fates(BTreeMap<&'static str, u64>);

impl Fates {
    /// Makes sure that each of these was the fate of one input in 200 at least: that the decoder was tried, and not only what is before it.
    ///
    /// # Panics
    /// Where one was not.
    pub fn include<const N: usize>(&self, fates: [&str; N]) {
        let all: u64 = self.0.values().sum();
        for fate in fates {
            let inputs = self.0.get(fate).copied().unwrap_or_default();
            assert!(inputs * 200 >= all, "`{fate}` is hardly tried: {self}");
        }
    }
}

impl fmt::Display for Fates {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (fate, inputs)) in self.0.iter().enumerate() {
            write!(formatter, "{}{inputs} {fate}", if place == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    fn target(form: Form, inputs: &[&[u8]]) -> (tempfile::TempDir, Target) {
        let directory = tempfile::tempdir().unwrap();
        for (number, input) in inputs.iter().enumerate() {
            std::fs::write(directory.path().join(number.to_string()), input).unwrap();
        }
        let target = Target::new(form, directory.path().to_str().unwrap());
        (directory, target)
    }

    #[test]
    fn what_fails_is_made_small_kept_and_tried_first() {
        let (directory, target) = target(Form::Text, &[b"a line = of some text", b"{ another: 17 }"]);
        let equals = |input: &[u8]| input.iter().filter(|byte| **byte == b'=').count();
        let read = |input: &[u8]| {
            assert!(equals(input) < 2, "two of them");
            "read"
        };
        let said = catch_unwind(AssertUnwindSafe(|| target.run(read))).unwrap_err();
        let said = said.downcast_ref::<String>().unwrap();
        assert!(said.contains("two of them") && said.contains("kept as "), "{said}");
        let found = std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().path());
        let found = found.filter(|path| path.to_str().unwrap().contains("found-")).collect::<Vec<_>>();
        assert_eq!(found.len(), 1);
        let input = std::fs::read(&found[0]).unwrap();
        assert!(input.len() <= 48 && equals(&input) == 2, "{}", input.escape_ascii());
        let said = catch_unwind(AssertUnwindSafe(|| target.run(read))).unwrap_err();
        assert!(!said.downcast_ref::<&str>().is_some_and(|said| said.contains("kept as")), "it is not the kept one");
    }

    #[test]
    fn every_run_is_the_same() {
        let (_directory, target) = target(Form::Bytes, &[b"\x08\x01", b"abc"]);
        let run = || {
            let inputs = RefCell::new(Vec::new());
            target.run(|input| {
                inputs.borrow_mut().push(input.to_vec());
                if input.is_ascii() { "text" } else { "other" }
            });
            inputs.into_inner()
        };
        let first = run();
        assert!(first.len() == INPUTS as usize + 2 && first == run());
    }

    #[test]
    fn what_is_hardly_tried_is_said() {
        let fates = Fates(BTreeMap::from([("read", 2000), ("refused", 9)]));
        fates.include(["read"]);
        assert!(catch_unwind(|| fates.include(["refused"])).is_err() && catch_unwind(|| fates.include(["lost"])).is_err());
    }
}
