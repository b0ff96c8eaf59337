//! Whether a history can be explained by one order of its operations.
//!
//! The search is that of Wing and Gong: take any operation that was called before all others that are left were answered, do it to the
//! state, and go on; where nothing fits, go back. As Lowe found, it is enough to visit every set of operations done with every
//! state once. Keys that no operation looks at together are searched apart, because histories are linearizable when their parts are.
//! Where revisions are known they say which operation to try first, so a right history is found right at the first try.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;

use bytes::Bytes;

use super::history::{Call, History, Operation, Outcome, Value};

/// How many steps a search may take for one part of a history.
const STEPS: usize = 1_000_000;

/// Why a history is not linearizable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// No order of the operations explains the answers.
    #[error("no order explains the answers: {0}")]
    NoOrder(String),
    /// The revisions of the answers contradict the order in which they were given, or what was read.
    #[error("the revisions are wrong: {0}")]
    Revisions(String),
    /// The search was given up: there are too many possible orders. Use values that are written once, fewer clients, or shorter histories.
    #[error("the search was given up after {STEPS} steps: too many orders are possible")]
    Undecided,
}

/// Checks that every operation of a history could have taken effect at one moment between its call and its answer.
///
/// It is the sharper the fewer operations write the same value to a key. Where revisions are known, they must fit, too.
///
/// # Errors
/// [`Violation`]: why there is no such order, with the operations around the place where it was looked for the longest.
pub fn check_linearizable(history: &History) -> Result<(), Violation> {
    check_revisions(history)?;
    for part in parts(history) {
        Search::new(&history.initial, part).run()?;
    }
    Ok(())
}

/// The operations by sets of keys that have nothing to do with each other.
fn parts(history: &History) -> Vec<Vec<&Operation>> {
    fn root(parents: &mut [usize], mut at: usize) -> usize {
        while parents[at] != at {
            parents[at] = parents[parents[at]];
            at = parents[at];
        }
        at
    }
    let mut owners: BTreeMap<&Bytes, usize> = BTreeMap::new();
    let mut parents: Vec<usize> = (0..history.operations.len()).collect();
    for (n, operation) in history.operations.iter().enumerate() {
        for key in operation.call.keys() {
            let other = *owners.entry(key).or_insert(n);
            let (a, b) = (root(&mut parents, n), root(&mut parents, other));
            parents[a] = b;
        }
    }
    let mut parts: BTreeMap<usize, Vec<&Operation>> = BTreeMap::new();
    for (n, operation) in history.operations.iter().enumerate() {
        parts
            .entry(root(&mut parents, n))
            .or_default()
            .push(operation);
    }
    parts.into_values().collect()
}

/// Revisions rise in the order of time, no two writes share one, and what is read at one is what was written last.
fn check_revisions(history: &History) -> Result<(), Violation> {
    let wrong = |why: String| Err(Violation::Revisions(why));
    let mut writes: BTreeMap<u64, &Operation> = BTreeMap::new();
    let mut by_answer: Vec<(u64, u64, &Operation)> = Vec::new();
    for operation in &history.operations {
        let Some(revision) = operation.revision() else {
            continue;
        };
        by_answer.push((operation.answered, revision.0, operation));
        if matches!(operation.outcome, Outcome::Applied { .. })
            && let Some(other) = writes.insert(revision.0, operation)
        {
            return wrong(format!(
                "two writes at one revision:\n{}\n{}",
                Shown(other),
                Shown(operation)
            ));
        }
    }
    // In the order of the answers, with the newest revision up to each.
    by_answer.sort_by_key(|(answered, ..)| *answered);
    let mut newest: Vec<(u64, u64, &Operation)> = Vec::with_capacity(by_answer.len());
    for (answered, revision, operation) in by_answer {
        let last = newest.last().copied();
        newest.push(match last {
            Some((_, best, by)) if best >= revision => (answered, best, by),
            _ => (answered, revision, operation),
        });
    }
    for operation in &history.operations {
        let Some(revision) = operation.revision() else {
            continue;
        };
        let before = newest.partition_point(|(answered, ..)| *answered < operation.called);
        let Some((_, known, by)) = before.checked_sub(1).and_then(|at| newest.get(at)) else {
            continue;
        };
        // A write takes a revision of its own.
        let write = matches!(operation.outcome, Outcome::Applied { .. });
        if revision.0 < *known || (write && revision.0 == *known) {
            return wrong(format!(
                "an answer tells of an earlier revision than one before it:\n{}\n{}",
                Shown(by),
                Shown(operation)
            ));
        }
    }
    check_reads(history, &writes)
}

/// What was read at a revision was written at it or before, and by nobody in between. Keys that an unknown write may have touched are
/// left to the search, and so are all when a write has no revision.
fn check_reads(history: &History, writes: &BTreeMap<u64, &Operation>) -> Result<(), Violation> {
    let mut unsure: BTreeSet<&Bytes> = BTreeSet::new();
    for operation in &history.operations {
        if let Call::Write { writes, .. } = &operation.call {
            let unknown = match operation.outcome {
                Outcome::Unknown => true,
                Outcome::Applied { revision } => revision.is_none(),
                _ => false,
            };
            if unknown {
                unsure.extend(writes.iter().map(|(key, _)| key));
            }
        }
    }
    let mut written: BTreeMap<&Bytes, Vec<(u64, &Value)>> = BTreeMap::new();
    for (revision, operation) in writes {
        if let Call::Write { writes, .. } = &operation.call {
            for (key, value) in writes {
                written.entry(key).or_default().push((*revision, value));
            }
        }
    }
    let initial: BTreeMap<&Bytes, &Bytes> = history
        .initial
        .iter()
        .map(|(key, value)| (key, value))
        .collect();
    for operation in &history.operations {
        let (
            Call::Read(keys),
            Outcome::Read {
                values,
                revision: Some(at),
            },
        ) = (&operation.call, &operation.outcome)
        else {
            continue;
        };
        for (key, value) in keys.iter().zip(values) {
            if unsure.contains(key) {
                continue;
            }
            let versions = written.get(key).map_or([].as_slice(), Vec::as_slice);
            let last = versions.partition_point(|(revision, _)| *revision <= at.0);
            let wanted = match last.checked_sub(1).and_then(|last| versions.get(last)) {
                Some((_, value)) => value.as_ref(),
                None => initial.get(key).copied(),
            };
            if value.as_ref() != wanted {
                return Err(Violation::Revisions(format!(
                    "at {at} stood {wanted:?}, and this was read:\n{}",
                    Shown(operation)
                )));
            }
        }
    }
    Ok(())
}

/// An operation with its values as numbers: zero for none.
struct Step<'a> {
    operation: &'a Operation,
    deadline: u64,
    /// Which values must stand where, for it to have this answer.
    needs: Vec<(usize, u32)>,
    /// Of these one at least must differ.
    differs: Option<Vec<(usize, u32)>>,
    writes: Vec<(usize, u32)>,
    /// It need not have happened.
    optional: bool,
}

/// What was done, and the state that it made.
type Place = (Box<[u64]>, Box<[u32]>);

/// The search for an order of operations on some keys.
struct Search<'a> {
    steps: Vec<Step<'a>>,
    state: Vec<u32>,
}

/// A step that was taken, and how to go back.
struct Taken {
    /// What can be tried at this place, the last first.
    left: Vec<usize>,
    /// The step that was taken.
    step: usize,
    undo: Vec<(usize, u32)>,
}

impl<'a> Search<'a> {
    fn new(initial: &'a [(Bytes, Bytes)], operations: Vec<&'a Operation>) -> Self {
        let operations = observed(operations);
        let mut keys: BTreeMap<&Bytes, usize> = BTreeMap::new();
        for key in operations
            .iter()
            .flat_map(|operation| operation.call.keys())
        {
            let next = keys.len();
            keys.entry(key).or_insert(next);
        }
        let mut values: BTreeMap<Bytes, u32> = BTreeMap::new();
        let mut number = |value: &Value| match value {
            None => 0,
            Some(value) => {
                let next = u32::try_from(values.len() + 1).unwrap_or(u32::MAX);
                *values.entry(value.clone()).or_insert(next)
            }
        };
        let mut state = vec![0; keys.len()];
        for (key, value) in initial {
            if let Some(&at) = keys.get(key) {
                state[at] = number(&Some(value.clone()));
            }
        }
        let mut steps: Vec<_> = operations
            .into_iter()
            .map(|operation| {
                let mut pairs = |pairs: &[(Bytes, Value)]| -> Vec<(usize, u32)> {
                    let pairs = pairs.iter();
                    pairs
                        .map(|(key, value)| (keys[key], number(value)))
                        .collect()
                };
                let mut step = Step {
                    operation,
                    deadline: operation.deadline(),
                    needs: Vec::new(),
                    differs: None,
                    writes: Vec::new(),
                    optional: false,
                };
                match (&operation.call, &operation.outcome) {
                    (Call::Read(keys), Outcome::Read { values, .. }) => {
                        let read: Vec<_> =
                            keys.iter().cloned().zip(values.iter().cloned()).collect();
                        step.needs = pairs(&read);
                    }
                    (Call::Write { expected, .. }, Outcome::Refused { current, .. }) => {
                        let found: Vec<_> = expected
                            .iter()
                            .map(|(key, _)| key.clone())
                            .zip(current.iter().cloned())
                            .collect();
                        step.needs = pairs(&found);
                        step.differs = Some(pairs(expected));
                    }
                    (
                        Call::Write { expected, writes },
                        outcome @ (Outcome::Applied { .. } | Outcome::Unknown),
                    ) => {
                        step.needs = pairs(expected);
                        step.writes = pairs(writes);
                        step.optional = *outcome == Outcome::Unknown;
                    }
                    // Answers of another kind fit no state.
                    _ => step.differs = Some(Vec::new()),
                }
                step
            })
            .collect();
        steps.sort_by_key(|step| step.operation.called);
        Self { steps, state }
    }

    fn fits(&self, step: &Step<'_>) -> bool {
        let stands = |&(at, value): &(usize, u32)| self.state[at] == value;
        step.needs.iter().all(stands)
            && step
                .differs
                .as_ref()
                .is_none_or(|expected| !expected.iter().all(stands))
    }

    /// What can come next: whatever was called before anything left was answered, and fits.
    fn candidates(&self, done: &Done) -> Vec<usize> {
        let mut first_answer = u64::MAX;
        let mut found = Vec::new();
        for (n, step) in self.steps.iter().enumerate().skip(done.first) {
            if step.operation.called > first_answer {
                break;
            }
            if done.has(n) {
                continue;
            }
            first_answer = first_answer.min(step.deadline);
            found.push(n);
        }
        found.retain(|&n| {
            let step = &self.steps[n];
            step.operation.called <= first_answer && self.fits(step)
        });
        // What changes nothing can as well come now as later, so nothing else need be tried.
        if let Some(&read) = found.iter().find(|&&n| self.steps[n].writes.is_empty()) {
            return vec![read];
        }
        // The last is tried first: the one with the smallest revision, and what may not have happened at all after the others.
        found.sort_by_key(|&n| {
            let step = &self.steps[n];
            let revision = step.operation.revision();
            let revision = revision.map_or(u64::MAX, |revision| revision.0);
            std::cmp::Reverse((step.optional, revision, step.deadline))
        });
        found
    }

    fn run(mut self) -> Result<(), Violation> {
        let certain = self.steps.iter().filter(|step| !step.optional).count();
        let mut done = Done::new(self.steps.len());
        let mut count = 0;
        let mut visited: HashSet<Place> = HashSet::new();
        let mut path: Vec<Taken> = Vec::new();
        let mut best = (0, String::new());
        let mut left = self.candidates(&done);
        for _ in 0..STEPS {
            if count == certain {
                return Ok(());
            }
            if let Some(step) = left.pop() {
                let undo: Vec<_> = self.steps[step]
                    .writes
                    .iter()
                    .map(|&(at, _)| (at, self.state[at]))
                    .collect();
                for &(at, value) in &self.steps[step].writes {
                    self.state[at] = value;
                }
                done.set(step, true);
                let place = (done.bits.clone().into(), self.state.clone().into());
                if visited.insert(place) {
                    count += usize::from(!self.steps[step].optional);
                    path.push(Taken { left, step, undo });
                    left = self.candidates(&done);
                    if left.is_empty() && count < certain && (count > best.0 || best.1.is_empty()) {
                        best = (count, self.describe(&done, &path));
                    }
                } else {
                    done.set(step, false);
                    self.undo(&undo);
                }
                continue;
            }
            let Some(taken) = path.pop() else {
                if best.1.is_empty() {
                    best.1 = self.describe(&done, &path);
                }
                return Err(Violation::NoOrder(best.1));
            };
            count -= usize::from(!self.steps[taken.step].optional);
            done.set(taken.step, false);
            self.undo(&taken.undo);
            left = taken.left;
        }
        Err(Violation::Undecided)
    }

    fn undo(&mut self, undo: &[(usize, u32)]) {
        for &(at, value) in undo {
            self.state[at] = value;
        }
    }

    /// The end of an order, and what cannot come after it.
    fn describe(&self, done: &Done, path: &[Taken]) -> String {
        use fmt::Write as _;
        let mut text = String::new();
        let before = path.iter().rev().take(6).collect::<Vec<_>>();
        for taken in before.into_iter().rev() {
            let _ = write!(
                text,
                "\n  done: {}",
                Shown(self.steps[taken.step].operation)
            );
        }
        let left = (0..self.steps.len()).filter(|&n| !done.has(n));
        for n in left.take(6) {
            let _ = write!(text, "\n  left: {}", Shown(self.steps[n].operation));
        }
        text
    }
}

/// Leaves out the writes with an unknown outcome of which nothing was ever seen: whether they happened makes no difference to
/// anybody, because between one of them and the next write to the same key nobody can have looked.
fn observed(operations: Vec<&Operation>) -> Vec<&Operation> {
    let mut seen: BTreeSet<(&Bytes, &Bytes)> = BTreeSet::new();
    for operation in &operations {
        match (&operation.call, &operation.outcome) {
            (Call::Read(keys), Outcome::Read { values, .. }) => {
                let pairs = keys.iter().zip(values);
                seen.extend(pairs.filter_map(|(key, value)| Some((key, value.as_ref()?))));
            }
            (Call::Read(_), _) => {}
            (Call::Write { expected, .. }, outcome) => {
                let pairs = expected.iter();
                seen.extend(pairs.filter_map(|(key, value)| Some((key, value.as_ref()?))));
                if let Outcome::Refused { current, .. } = outcome {
                    let keys = expected.iter().map(|(key, _)| key);
                    let pairs = keys.zip(current);
                    seen.extend(pairs.filter_map(|(key, value)| Some((key, value.as_ref()?))));
                }
            }
        }
    }
    // A refusal that does not tell what stood there may have seen anything.
    let blind: BTreeSet<&Bytes> = operations
        .iter()
        .filter_map(|operation| match (&operation.call, &operation.outcome) {
            (Call::Write { expected, .. }, Outcome::Refused { current, .. })
                if current.is_empty() =>
            {
                Some(expected.iter().map(|(key, _)| key))
            }
            _ => None,
        })
        .flatten()
        .collect();
    let matters = |operation: &&Operation| match (&operation.call, &operation.outcome) {
        (Call::Read(_), Outcome::Unknown) => false,
        (Call::Write { writes, .. }, Outcome::Unknown) => {
            writes.iter().any(|(key, value)| match value {
                None => true,
                Some(value) => seen.contains(&(key, value)) || blind.contains(key),
            })
        }
        _ => true,
    };
    operations.into_iter().filter(matters).collect()
}

/// A set of steps.
struct Done {
    bits: Vec<u64>,
    /// All steps before this one are in it.
    first: usize,
    len: usize,
}

impl Done {
    fn new(len: usize) -> Self {
        Self {
            bits: vec![0; len.div_ceil(64)],
            first: 0,
            len,
        }
    }

    fn has(&self, step: usize) -> bool {
        self.bits[step / 64] & (1 << (step % 64)) != 0
    }

    fn set(&mut self, step: usize, done: bool) {
        if done {
            self.bits[step / 64] |= 1 << (step % 64);
            while self.first < self.len && self.has(self.first) {
                self.first += 1;
            }
        } else {
            self.bits[step / 64] &= !(1 << (step % 64));
            self.first = self.first.min(step);
        }
    }
}

/// An operation for people.
struct Shown<'a>(&'a Operation);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let operation = self.0;
        write!(
            f,
            "[{}, {}] client {}: {:?} -> {:?}",
            operation.called,
            operation.answered,
            operation.client,
            operation.call,
            operation.outcome
        )
    }
}
