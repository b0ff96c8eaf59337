use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::revision::Revision;

fn bytes(text: &str) -> Value {
    (text != "-").then(|| Bytes::copy_from_slice(text.as_bytes()))
}

/// `"0-5 w x=1"`, `"0-5 r x=1"`, `"0-5 c x=1>2"` (applied where 1 stood), `"0-5 f x=1!3"` (refused as 3 stood there), `"0-? w x=1"`; `-` is
/// no value, and `@7` at the end is a revision.
fn operation(text: &str) -> Operation {
    let mut words = text.split(' ');
    let (called, answered) = words.next().unwrap().split_once('-').unwrap();
    let kind = words.next().unwrap();
    let mut pairs = Vec::new();
    let mut revision = None;
    for word in words {
        match word.strip_prefix('@') {
            Some(at) => revision = Some(Revision(at.parse().unwrap())),
            None => pairs.push(word.split_once('=').unwrap()),
        }
    }
    let key = |key: &str| Bytes::copy_from_slice(key.as_bytes());
    let (call, outcome) = match kind {
        "r" => (
            Call::Read(pairs.iter().map(|(k, _)| key(k)).collect()),
            Outcome::Read {
                values: pairs.iter().map(|(_, v)| bytes(v)).collect(),
                revision,
            },
        ),
        "w" => (
            Call::Write {
                expected: vec![],
                writes: pairs.iter().map(|(k, v)| (key(k), bytes(v))).collect(),
            },
            Outcome::Applied { revision },
        ),
        "c" => {
            let (old, new) = pairs[0].1.split_once('>').unwrap();
            (
                Call::Write {
                    expected: vec![(key(pairs[0].0), bytes(old))],
                    writes: vec![(key(pairs[0].0), bytes(new))],
                },
                Outcome::Applied { revision },
            )
        }
        _ => {
            let (old, current) = pairs[0].1.split_once('!').unwrap();
            (
                Call::Write {
                    expected: vec![(key(pairs[0].0), bytes(old))],
                    writes: vec![(key(pairs[0].0), bytes("never"))],
                },
                Outcome::Refused {
                    current: vec![bytes(current)],
                    revision,
                },
            )
        }
    };
    Operation {
        client: 0,
        call,
        outcome: if answered == "?" {
            Outcome::Unknown
        } else {
            outcome
        },
        called: called.parse().unwrap(),
        answered: answered.parse().unwrap_or(0),
    }
}

fn check(operations: &[&str]) -> Result<(), Violation> {
    check_linearizable(&History {
        initial: vec![("old".into(), "1".into())],
        operations: operations.iter().map(|text| operation(text)).collect(),
    })
}

#[test]
fn right_histories_are_accepted() {
    let cases: &[&[&str]] = &[
        &[],
        &[
            "0-1 r x=-",
            "2-3 w x=1",
            "4-5 r x=1",
            "6-7 w x=-",
            "8-9 r x=-",
        ],
        &["0-1 r old=1", "2-3 c old=1>2", "4-5 f old=1!2"],
        // Beside a write, either is seen.
        &["0-9 w x=1", "1-2 r x=-", "3-4 r x=1"],
        &["0-9 w x=1", "0-9 w x=2", "10-11 r x=1"],
        &["0-9 w x=1", "0-9 w x=2", "10-11 r x=2"],
        // Two readers beside three writers.
        &[
            "0-20 w x=1",
            "0-20 w x=2",
            "0-20 w x=3",
            "1-2 r x=3",
            "3-4 r x=1",
            "5-6 r x=2",
            "21-22 r x=2",
        ],
        // Two keys at once.
        &["0-9 w x=1 y=1", "1-2 r x=-", "3-4 r y=1", "10-11 r x=1 y=1"],
        // What is unknown may have happened late, early, or never.
        &[
            "0-? w x=1",
            "2-3 r x=-",
            "4-5 r x=1",
            "6-7 w x=2",
            "8-9 r x=2",
        ],
        &[
            "0-? w x=1",
            "2-3 r x=-",
            "4-5 w x=2",
            "6-7 r x=2",
            "8-9 r x=1",
        ],
        &["0-? w x=1", "2-3 r x=-", "4-5 r x=-"],
        &["0-1 w x=1", "2-? w x=-", "3-4 r x=1", "5-6 r x=-"],
        &[
            "0-? c x=->1",
            "2-3 w x=2",
            "4-5 r x=2",
            "6-7 w x=-",
            "8-9 r x=1",
        ],
        // Revisions that fit.
        &[
            "0-9 w x=1 @2",
            "0-9 w x=2 @3",
            "1-2 r x=- @1",
            "10-11 r x=2 @3",
        ],
        &[
            "0-9 w x=1 @3",
            "0-9 w x=2 @2",
            "10-11 r x=1 @3",
            "12-13 f x=2!1 @3",
        ],
    ];
    for case in cases {
        assert_eq!(check(case), Ok(()), "{case:?}");
    }
}

#[test]
fn wrong_histories_are_rejected() {
    let cases: &[&[&str]] = &[
        // What was never written, or not yet.
        &["0-1 r x=1"],
        &["0-1 r x=1", "2-3 w x=1"],
        // A stale read, and a lost write.
        &["0-1 w x=1", "2-3 w x=2", "4-5 r x=1"],
        &["0-1 w x=1", "2-3 r x=-"],
        &["0-9 w x=1", "0-9 w x=2", "10-11 r x=1", "12-13 r x=2"],
        // Readers that see two writes in two orders.
        &[
            "0-9 w x=1",
            "0-9 w x=2",
            "1-2 r x=1",
            "3-4 r x=2",
            "5-6 r x=1",
        ],
        // Half a transaction.
        &["0-9 w x=1 y=1", "1-2 r x=1", "3-4 r y=-"],
        &["0-9 w x=1 y=1", "1-2 r x=1 y=-"],
        // Two that both found what only one can have found.
        &["0-9 c x=->1", "0-9 c x=->2"],
        &["0-1 w x=1", "2-9 c x=1>2", "2-9 c x=1>3"],
        // A refusal without a reason.
        &["0-1 w x=1", "2-3 f x=1!1"],
        &["0-1 w x=1", "2-3 f x=2!3"],
        // What is unknown happens once, and not before it was asked for.
        &["0-? w x=1", "2-3 r x=1", "4-5 w x=2", "6-7 r x=1"],
        &["0-1 r x=1", "2-? w x=1"],
        // One key is enough among many.
        &[
            "0-1 w a=1",
            "2-3 w b=1",
            "4-5 w x=1",
            "6-7 r a=1",
            "8-9 r x=-",
        ],
    ];
    for case in cases {
        let found = check(case);
        assert!(
            matches!(found, Err(Violation::NoOrder(_))),
            "{case:?}: {found:?}"
        );
    }
    let cases: &[&[&str]] = &[
        &["0-9 w x=1 @2", "0-9 w x=2 @2"],
        &["0-1 w x=1 @3", "2-3 w y=1 @2"],
        &["0-1 w x=1 @3", "2-3 r y=- @2"],
        &["0-9 w x=1 @2", "0-9 w x=2 @3", "10-11 r x=1 @3"],
        &["0-9 w x=1 @2", "0-9 r x=1 @1"],
    ];
    for case in cases {
        let found = check(case);
        assert!(
            matches!(found, Err(Violation::Revisions(_))),
            "{case:?}: {found:?}"
        );
    }
}

#[test]
fn a_recorder_takes_down_what_happens() {
    let recorder = Recorder::new();
    let key = || vec![Bytes::from("x")];
    let write = |value: &str| Call::Write {
        expected: vec![],
        writes: vec![("x".into(), bytes(value))],
    };
    let first = recorder.begin(1, write("1"));
    let second = recorder.begin(2, write("2"));
    first.end(Outcome::Applied { revision: None });
    drop(second);
    recorder.begin(1, Call::Read(key())).forget();
    let last = recorder.begin(1, Call::Read(key()));
    last.end(Outcome::Read {
        values: vec![bytes("2")],
        revision: None,
    });
    let history = recorder.history();
    let outcomes: Vec<_> = history.operations.iter().map(|o| &o.outcome).collect();
    assert_eq!(outcomes.len(), 3);
    assert_eq!(*outcomes[1], Outcome::Unknown);
    assert!(history.operations.iter().all(|o| o.called < o.answered));
    assert_eq!(check_linearizable(&history), Ok(()));
}

#[derive(Clone, Debug)]
enum Kind {
    Read(usize),
    ReadAll,
    Write(usize),
    WriteTwo(usize),
    Delete(usize),
    /// Conditional, on what stands there or on something else.
    Change(usize, bool),
    /// A write with an unknown outcome that happens or does not.
    Lost(usize, bool),
}

const KEYS: usize = 3;

fn kinds() -> impl Strategy<Value = Vec<(Kind, u64, u64)>> {
    let kind = prop_oneof![
        4 => (0..KEYS).prop_map(Kind::Read),
        1 => Just(Kind::ReadAll),
        3 => (0..KEYS).prop_map(Kind::Write),
        1 => (0..KEYS).prop_map(Kind::WriteTwo),
        1 => (0..KEYS).prop_map(Kind::Delete),
        2 => (0..KEYS, any::<bool>()).prop_map(|(key, right)| Kind::Change(key, right)),
        1 => (0..KEYS, any::<bool>()).prop_map(|(key, happens)| Kind::Lost(key, happens)),
    ];
    proptest::collection::vec((kind, 0..60u64, 0..60u64), 1..120)
}

fn key(n: usize) -> Bytes {
    format!("k{}", n % KEYS).into()
}

/// A history that one client after the other could have made, each operation stretched around the moment when it was done.
fn history(kinds: &[(Kind, u64, u64)], revisions: bool) -> History {
    let mut state: Vec<Value> = vec![None; KEYS];
    let mut revision = Revision(1);
    let mut operations = Vec::new();
    for (n, (kind, before, after)) in (0u64..).zip(kinds) {
        let moment = 1000 + n * 10;
        let own = |extra: &str| Some(Bytes::from(format!("v{n}{extra}")));
        let before_it = state.clone();
        let mut apply = |writes: Vec<(usize, Value)>| {
            revision = revision.next();
            let writes: Vec<_> = writes
                .into_iter()
                .map(|(at, value)| {
                    state[at % KEYS] = value.clone();
                    (key(at), value)
                })
                .collect();
            (writes, revisions.then_some(revision))
        };
        let (call, outcome) = match *kind {
            Kind::Write(at) | Kind::Delete(at) | Kind::WriteTwo(at) => {
                let mut writes = vec![(at, own(""))];
                match kind {
                    Kind::Delete(_) => writes[0].1 = None,
                    Kind::WriteTwo(_) => writes.push((at + 1, own("b"))),
                    _ => {}
                }
                let (writes, revision) = apply(writes);
                let expected = vec![];
                (
                    Call::Write { expected, writes },
                    Outcome::Applied { revision },
                )
            }
            Kind::Change(at, right) => {
                let stands = before_it[at].clone();
                if right {
                    let (writes, revision) = apply(vec![(at, own(""))]);
                    let expected = vec![(key(at), stands)];
                    (
                        Call::Write { expected, writes },
                        Outcome::Applied { revision },
                    )
                } else {
                    let call = Call::Write {
                        expected: vec![(key(at), own("never"))],
                        writes: vec![(key(at), own(""))],
                    };
                    let refused = Outcome::Refused {
                        current: vec![stands],
                        revision: revisions.then_some(revision),
                    };
                    (call, refused)
                }
            }
            Kind::Lost(at, happens) => {
                let writes = if happens {
                    apply(vec![(at, own(""))]).0
                } else {
                    vec![(key(at), own(""))]
                };
                let expected = vec![];
                (Call::Write { expected, writes }, Outcome::Unknown)
            }
            Kind::Read(_) | Kind::ReadAll => {
                let keys = match *kind {
                    Kind::Read(at) => vec![at],
                    _ => (0..KEYS).collect(),
                };
                let read = Outcome::Read {
                    values: keys.iter().map(|&at| state[at].clone()).collect(),
                    revision: revisions.then_some(revision),
                };
                (Call::Read(keys.into_iter().map(key).collect()), read)
            }
        };
        operations.push(Operation {
            client: n as usize % 7,
            call,
            outcome,
            called: moment - before,
            answered: moment + after,
        });
    }
    History {
        initial: Vec::new(),
        operations,
    }
}

fn write_of<'a>(operation: &'a Operation, key: &Bytes) -> Option<&'a Value> {
    match (&operation.call, &operation.outcome) {
        (Call::Write { writes, .. }, Outcome::Applied { .. }) => writes
            .iter()
            .find(|(own, _)| own == key)
            .map(|(_, value)| value),
        _ => None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    #[test]
    fn what_could_have_been_done_in_order_is_accepted(kinds in kinds(), revisions: bool) {
        prop_assert_eq!(check_linearizable(&history(&kinds, revisions)), Ok(()));
    }

    /// A read is given what was overwritten for certain before it was asked for.
    #[test]
    fn one_stale_read_is_rejected(kinds in kinds(), revisions: bool, which: prop::sample::Index) {
        let mut history = history(&kinds, revisions);
        let mut stale = Vec::new();
        for (n, read) in history.operations.iter().enumerate() {
            let (Call::Read(keys), Outcome::Read { .. }) = (&read.call, &read.outcome) else {
                continue;
            };
            for newer in history.operations.iter().filter(|o| o.answered < read.called) {
                for older in history.operations.iter().filter(|o| o.answered < newer.called) {
                    if let (Some(_), Some(Some(old))) = (write_of(newer, &keys[0]), write_of(older, &keys[0])) {
                        stale.push((n, old.clone()));
                    }
                }
            }
        }
        prop_assume!(!stale.is_empty());
        let (n, old) = which.get(&stale).clone();
        if let Outcome::Read { values, .. } = &mut history.operations[n].outcome {
            values[0] = Some(old);
        }
        prop_assert!(check_linearizable(&history).is_err());
    }

    /// Two writes of a key that came one after the other change places in the eyes of everybody who read one of them.
    #[test]
    fn swapped_results_are_rejected(kinds in kinds(), which: prop::sample::Index) {
        let mut history = history(&kinds, false);
        let mut swaps = Vec::new();
        for (a, first) in history.operations.iter().enumerate() {
            for (b, second) in history.operations.iter().enumerate().skip(a + 1) {
                let (Call::Read(one), Call::Read(two)) = (&first.call, &second.call) else { continue };
                let (Outcome::Read { values: was, .. }, Outcome::Read { values: is, .. }) = (&first.outcome, &second.outcome) else { continue };
                let apart = first.answered < second.called;
                // The second value was not there yet when the first was read, for certain.
                let late = history.operations.iter().any(|o| {
                    o.called > first.answered && write_of(o, &one[0]).is_some_and(|value| value == &is[0])
                });
                if apart && one == two && one.len() == 1 && was != is && is[0].is_some() && late {
                    swaps.push((a, b));
                }
            }
        }
        prop_assume!(!swaps.is_empty());
        let (a, b) = *which.get(&swaps);
        let first = history.operations[a].outcome.clone();
        history.operations[a].outcome = std::mem::replace(&mut history.operations[b].outcome, first);
        prop_assert!(check_linearizable(&history).is_err());
    }
}
