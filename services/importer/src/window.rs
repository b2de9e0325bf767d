//! What of a log is read and not yet acknowledged: by terminal, in order, one batch of each on its way; and how far everything is done.
//!
//! A batch of a terminal is given out when the one before is settled, so whatever is sent of a terminal, all lines before it are settled. That, and that sequences
//! are the lines' numbers, is what makes an import count once: also where two of them run at the same time.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use crate::lines::Place;
use crate::reading::{Block, Prepared};

/// Most events that wait, and most bytes of them. The more there are, the more of them go in one batch: a log of 20,000 terminals has ten of each in here.
const MOST_EVENTS: usize = 200_000;
const MOST_BYTES: usize = 64 * 1024 * 1024;
/// What an event takes beside its bytes, roughly.
const AROUND_EVENT: usize = 128;

/// Most of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) events: usize,
    /// Of the events, without what is around them.
    pub(crate) bytes: usize,
}

/// Events of one terminal under one profile, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Batch {
    pub(crate) terminal: Arc<str>,
    pub(crate) profile: Bytes,
    /// By line.
    pub(crate) events: Vec<(u64, Bytes)>,
    /// The number of the block that each event is of.
    blocks: Vec<u64>,
}

/// An event that waits.
struct Waiting {
    line: u64,
    block: u64,
    profile: Bytes,
    event: Bytes,
}

/// What waits of a terminal.
#[derive(Default)]
struct Queue {
    events: VecDeque<Waiting>,
    /// Whether a batch is on its way.
    is_sending: bool,
}

/// A block, of which so many events are not settled.
struct Open {
    left: usize,
    end: Place,
}

/// What is read and not yet done.
pub(crate) struct Window {
    limits: Limits,
    /// In the order of the log.
    blocks: VecDeque<Open>,
    first_block: u64,
    terminals: HashMap<Arc<str>, Queue>,
    /// Terminals that could send, by their first line; and those of them that could send a full batch.
    ready: BTreeMap<u64, Arc<str>>,
    full: BTreeMap<u64, Arc<str>>,
    /// Events that are not settled, and what they take.
    events: usize,
    bytes: usize,
    done: Place,
}

impl Window {
    /// Everything before `done` is done.
    pub(crate) fn new(limits: Limits, done: Place) -> Window {
        Window {
            limits,
            blocks: VecDeque::new(),
            first_block: 0,
            terminals: HashMap::new(),
            ready: BTreeMap::new(),
            full: BTreeMap::new(),
            events: 0,
            bytes: 0,
            done,
        }
    }

    /// Whether more may be read.
    pub(crate) fn has_room(&self) -> bool {
        self.events < MOST_EVENTS && self.bytes < MOST_BYTES
    }

    /// Whether so much waits that batches need not be full.
    pub(crate) fn is_half_full(&self) -> bool {
        self.events >= MOST_EVENTS / 2 || self.bytes >= MOST_BYTES / 2
    }

    /// Everything up to there is settled.
    pub(crate) fn done(&self) -> Place {
        self.done
    }

    /// Takes what was read next.
    pub(crate) fn add(&mut self, block: Block) {
        let number = self.first_block + u64::try_from(self.blocks.len()).unwrap_or_default();
        self.blocks.push_back(Open { left: block.events.len(), end: block.end });
        for Prepared { line, terminal, profile, event } in block.events {
            self.events += 1;
            self.bytes += event.len() + AROUND_EVENT;
            let queue = self.terminals.entry(Arc::clone(&terminal)).or_default();
            queue.events.push_back(Waiting { line, block: number, profile, event });
            if !queue.is_sending {
                let first = queue.events.front().map_or(line, |first| first.line);
                if queue.events.len() == 1 {
                    self.ready.insert(first, Arc::clone(&terminal));
                }
                if queue.events.len() == self.limits.events {
                    self.full.insert(first, terminal);
                }
            }
        }
        self.advance();
    }

    /// The next batch: a full one; or, of any size, that with the oldest line.
    pub(crate) fn next(&mut self, of_any_size: bool) -> Option<Batch> {
        let first = self.full.first_key_value().or_else(|| self.ready.first_key_value().filter(|_| of_any_size)).map(|(line, _)| *line)?;
        self.full.remove(&first);
        let terminal = self.ready.remove(&first)?;
        let queue = self.terminals.get_mut(&terminal)?;
        queue.is_sending = true;
        let profile = queue.events.front()?.profile.clone();
        let mut batch = Batch { terminal, profile, events: Vec::new(), blocks: Vec::new() };
        let mut bytes = 0;
        while let Some(next) = queue.events.front() {
            bytes += next.event.len();
            let is_full = batch.events.len() >= self.limits.events || bytes > self.limits.bytes;
            if next.profile != batch.profile || (is_full && !batch.events.is_empty()) {
                break;
            }
            let Some(Waiting { line, block, event, .. }) = queue.events.pop_front() else { break };
            batch.events.push((line, event));
            batch.blocks.push(block);
        }
        Some(batch)
    }

    /// A batch is settled: each of its events is acknowledged, or never will be.
    pub(crate) fn settle(&mut self, batch: &Batch) {
        for ((_, event), block) in batch.events.iter().zip(&batch.blocks) {
            self.events = self.events.saturating_sub(1);
            self.bytes = self.bytes.saturating_sub(event.len() + AROUND_EVENT);
            let place = usize::try_from(block - self.first_block).unwrap_or(usize::MAX);
            if let Some(open) = self.blocks.get_mut(place) {
                open.left = open.left.saturating_sub(1);
            }
        }
        if let Some(queue) = self.terminals.get_mut(&batch.terminal) {
            queue.is_sending = false;
            match queue.events.front() {
                Some(first) => {
                    self.ready.insert(first.line, Arc::clone(&batch.terminal));
                    if queue.events.len() >= self.limits.events {
                        self.full.insert(first.line, Arc::clone(&batch.terminal));
                    }
                }
                None => drop(self.terminals.remove(&batch.terminal)),
            }
        }
        self.advance();
    }

    fn advance(&mut self) {
        while let Some(open) = self.blocks.front().filter(|open| open.left == 0) {
            self.done = open.end;
            self.blocks.pop_front();
            self.first_block += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(events: usize) -> Window {
        Window::new(Limits { events, bytes: 1000 }, Place::default())
    }

    fn place(lines: u64) -> Place {
        Place { lines, bytes: 10 * lines }
    }

    /// A block of lines, each with its terminal and its profile.
    fn block(first: u64, lines: &[(&str, &str)]) -> Block {
        let events = lines.iter().zip(first..).map(|((terminal, profile), line)| Prepared {
            line,
            terminal: (*terminal).into(),
            profile: Bytes::copy_from_slice(profile.as_bytes()),
            event: Bytes::from(vec![0; 100]),
        });
        let end = place(first + u64::try_from(lines.len()).unwrap() - 1);
        Block { events: events.collect(), end, ..Block::default() }
    }

    fn lines(batch: Option<&Batch>) -> Vec<u64> {
        batch.map(|batch| batch.events.iter().map(|(line, _)| *line).collect()).unwrap_or_default()
    }

    #[test]
    fn of_a_terminal_one_batch_is_on_its_way_and_the_rest_follows_in_order() {
        let mut window = window(2);
        window.add(block(1, &[("A", "p"), ("B", "p"), ("A", "p"), ("A", "p")]));
        let first = window.next(false);
        assert_eq!(lines(first.as_ref()), [1, 3]);
        assert_eq!(window.next(false), None, "nothing is full");
        let other = window.next(true);
        assert_eq!(lines(other.as_ref()), [2]);
        assert_eq!(window.next(true), None, "A has a batch on its way");
        window.settle(&first.unwrap());
        let second = window.next(true);
        assert_eq!(lines(second.as_ref()), [4]);
        window.settle(&second.unwrap());
        assert_eq!(window.done(), place(0));
        window.settle(&other.unwrap());
        assert_eq!((window.done(), window.events, window.bytes, window.terminals.len()), (place(4), 0, 0, 0));
    }

    #[test]
    fn what_is_done_is_everything_before_the_first_that_is_not() {
        let mut window = window(1);
        window.add(block(1, &[("A", "p")]));
        window.add(block(2, &[("B", "p")]));
        window.add(Block { end: place(5), ..Block::default() });
        let (a, b) = (window.next(true).unwrap(), window.next(true).unwrap());
        window.settle(&b);
        assert_eq!(window.done(), place(0));
        window.settle(&a);
        assert_eq!(window.done(), place(5));
        window.add(Block { end: place(9), ..Block::default() });
        assert_eq!(window.done(), place(9));
    }

    #[test]
    fn a_batch_is_of_one_profile_and_within_its_bytes() {
        let mut window = window(100);
        window.add(block(1, &[("A", "p"), ("A", "p"), ("A", "q"), ("A", "p")]));
        for expected in [vec![1, 2], vec![3], vec![4]] {
            let batch = window.next(true).unwrap();
            assert_eq!(lines(Some(&batch)), expected);
            window.settle(&batch);
        }
        window.add(block(5, &[("A", "p"); 25]));
        let batch = window.next(true).unwrap();
        assert_eq!(batch.events.len(), 10);
        window.settle(&batch);
        assert_eq!(window.next(true).unwrap().events.len(), 10);
    }

    #[test]
    fn there_is_room_until_too_much_waits() {
        let mut window = window(100);
        let mut first = 1;
        while window.has_room() {
            window.add(block(first, &[("A", "p"); 500]));
            first += 500;
        }
        assert!(first <= 200_501 && window.is_half_full());
        while let Some(batch) = window.next(true) {
            window.settle(&batch);
        }
        assert!(window.has_room() && !window.is_half_full() && window.done() == place(first - 1));
    }
}
