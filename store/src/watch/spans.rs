//! Spans of keys, found by a key that lies in them.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::Slot;

type Group = BTreeMap<u64, Arc<Slot>>;

/// Where a span ends: before a key, or never.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    Before(Bytes),
    Never,
}

impl End {
    fn is_after(&self, key: &[u8]) -> bool {
        match self {
            Self::Before(end) => key < end.as_ref(),
            Self::Never => true,
        }
    }
}

/// Watchers by the spans that they watch: a treap in the order of the spans' starts, in which every node knows how far the spans below
/// it reach. So a key finds the spans it lies in without a look at the others, and equal spans are one node.
#[derive(Debug, Default)]
pub(super) struct Spans {
    root: Tree,
    /// The state of the generator that the shape of the tree comes from.
    shape: u64,
}

type Tree = Option<Box<Node>>;

#[derive(Debug)]
struct Node {
    span: (Bytes, End),
    group: Group,
    priority: u64,
    /// The furthest end of the spans at and below this node.
    reach: End,
    before: Tree,
    after: Tree,
}

impl Spans {
    pub(super) fn insert(&mut self, from: &Bytes, to: Option<&Bytes>, id: u64, slot: Arc<Slot>) {
        let span = span(from, to);
        if let Some(node) = find(&mut self.root, &span) {
            node.group.insert(id, slot);
            return;
        }
        self.shape = self.shape.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.shape ^ (self.shape >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let node = Box::new(Node {
            reach: span.1.clone(),
            span,
            group: BTreeMap::from([(id, slot)]),
            priority: mixed ^ (mixed >> 27),
            before: None,
            after: None,
        });
        self.root = Some(add(self.root.take(), node));
    }

    pub(super) fn remove(&mut self, from: &Bytes, to: Option<&Bytes>, id: u64) {
        let span = span(from, to);
        let Some(node) = find(&mut self.root, &span) else {
            return;
        };
        node.group.remove(&id);
        if node.group.is_empty() {
            self.root = take(self.root.take(), &span);
        }
    }

    /// Calls a function with every watcher of a span that a key lies in.
    pub(super) fn containing(&self, key: &[u8], found: &mut impl FnMut(&Arc<Slot>)) {
        visit(&self.root, key, found);
    }
}

fn span(from: &Bytes, to: Option<&Bytes>) -> (Bytes, End) {
    (
        from.clone(),
        to.map_or(End::Never, |to| End::Before(to.clone())),
    )
}

impl Node {
    /// Puts right how far the spans reach when something below has changed.
    fn measured(mut self: Box<Self>) -> Box<Self> {
        self.reach = [&self.before, &self.after]
            .into_iter()
            .flatten()
            .map(|below| &below.reach)
            .chain([&self.span.1])
            .max()
            .cloned()
            .unwrap_or(End::Never);
        self
    }
}

fn find<'a>(tree: &'a mut Tree, span: &(Bytes, End)) -> Option<&'a mut Node> {
    let mut at = tree;
    while let Some(node) = at {
        at = match span.cmp(&node.span) {
            std::cmp::Ordering::Less => &mut node.before,
            std::cmp::Ordering::Greater => &mut node.after,
            std::cmp::Ordering::Equal => return Some(node),
        };
    }
    None
}

fn add(tree: Tree, new: Box<Node>) -> Box<Node> {
    let Some(mut node) = tree else {
        return new;
    };
    if new.priority > node.priority {
        let mut new = new;
        (new.before, new.after) = split(Some(node), &new.span);
        return new.measured();
    }
    if new.span < node.span {
        node.before = Some(add(node.before.take(), new));
    } else {
        node.after = Some(add(node.after.take(), new));
    }
    node.measured()
}

/// The spans before one, and those after it.
fn split(tree: Tree, at: &(Bytes, End)) -> (Tree, Tree) {
    let Some(mut node) = tree else {
        return (None, None);
    };
    if node.span < *at {
        let (between, after) = split(node.after.take(), at);
        node.after = between;
        (Some(node.measured()), after)
    } else {
        let (before, between) = split(node.before.take(), at);
        node.before = between;
        (before, Some(node.measured()))
    }
}

fn take(tree: Tree, span: &(Bytes, End)) -> Tree {
    let mut node = tree?;
    match span.cmp(&node.span) {
        std::cmp::Ordering::Less => node.before = take(node.before.take(), span),
        std::cmp::Ordering::Greater => node.after = take(node.after.take(), span),
        std::cmp::Ordering::Equal => return join(node.before.take(), node.after.take()),
    }
    Some(node.measured())
}

/// One tree of two, where all of the first comes before all of the second.
fn join(before: Tree, after: Tree) -> Tree {
    let (mut left, mut right) = match (before, after) {
        (None, one) | (one, None) => return one,
        (Some(left), Some(right)) => (left, right),
    };
    Some(if left.priority > right.priority {
        left.after = join(left.after.take(), Some(right));
        left.measured()
    } else {
        right.before = join(Some(left), right.before.take());
        right.measured()
    })
}

fn visit(tree: &Tree, key: &[u8], found: &mut impl FnMut(&Arc<Slot>)) {
    let Some(node) = tree else { return };
    if !node.reach.is_after(key) {
        return;
    }
    visit(&node.before, key, found);
    if node.span.0.as_ref() <= key {
        if node.span.1.is_after(key) {
            node.group.values().for_each(&mut *found);
        }
        visit(&node.after, key, found);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(number: u8) -> Bytes {
        format!("{number:03}").into()
    }

    fn depth(tree: &Tree) -> usize {
        tree.as_ref()
            .map_or(0, |node| 1 + depth(&node.before).max(depth(&node.after)))
    }

    #[test]
    fn a_key_finds_its_spans_among_many() {
        let mut spans = Spans::default();
        for n in 0..10_000u64 {
            let from = Bytes::from(format!("{n:05}"));
            let to = Bytes::from(format!("{:05}", n + 2));
            spans.insert(&from, Some(&to), n, Arc::default());
        }
        assert!(depth(&spans.root) < 60, "{}", depth(&spans.root));
        let mut count = 0;
        spans.containing(b"05000", &mut |_| count += 1);
        assert_eq!(count, 2);
    }

    proptest! {
        #[test]
        fn finds_what_a_look_at_all_would_find(
            steps in proptest::collection::vec((any::<bool>(), 0..20u8, proptest::option::of(0..20u8)), 1..120),
        ) {
            let mut spans = Spans::default();
            let mut all: BTreeMap<u64, (u8, Option<u8>, Arc<Slot>)> = BTreeMap::new();
            for (id, (insert, from, to)) in (0u64..).zip(steps) {
                if insert || all.is_empty() {
                    let slot = Arc::<Slot>::default();
                    spans.insert(&key(from), to.map(key).as_ref(), id, slot.clone());
                    all.insert(id, (from, to, slot));
                } else {
                    let nth = usize::from(from) % all.len();
                    let gone = *all.keys().nth(nth).expect("one is there");
                    let (from, to, _) = all.remove(&gone).expect("it is there");
                    spans.remove(&key(from), to.map(key).as_ref(), gone);
                }
                for n in 0..20u8 {
                    let mut found = Vec::new();
                    spans.containing(&key(n), &mut |slot| found.push(Arc::as_ptr(slot)));
                    let mut wanted: Vec<_> = all
                        .values()
                        .filter(|(from, to, _)| *from <= n && to.is_none_or(|to| n < to))
                        .map(|(_, _, slot)| Arc::as_ptr(slot))
                        .collect();
                    found.sort();
                    wanted.sort();
                    prop_assert_eq!(found, wanted);
                }
            }
            for (id, (from, to, _)) in all {
                spans.remove(&key(from), to.map(key).as_ref(), id);
            }
            prop_assert!(spans.root.is_none());
        }
    }
}
