//! What the children said, and what must therefore be there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::Path;

use bytes::Bytes;
use futures::StreamExt;
use orlop_core::env::Env;
use orlop_core::revision::Revision;
use orlop_core::store::{
    Change, KeyRange, KeyValue, LeaseId, RangeRequest, Store, StoreError, WatchItem, WatchRequest,
};
use orlop_store::DurableStore;
use orlop_store::snapshot::{self, Record};

use crate::child::{BACKUP, RESTORED};
use crate::options;
use crate::workload::{CLIENTS, COUNTER, author, count_key};

type State = BTreeMap<Bytes, KeyValue>;

/// What a step does.
#[derive(Clone, Debug, Default)]
struct Step {
    puts: Vec<(String, i64)>,
    deletes: Vec<String>,
    grant: Option<LeaseId>,
    revoke: Option<LeaseId>,
    count: Option<(u64, u64)>,
}

/// What must stand at a key.
#[derive(Clone, Debug)]
struct Expected {
    client: u64,
    step: u64,
    lease: i64,
    version: u64,
    /// Where they are known.
    created: Option<Revision>,
    modified: Option<Revision>,
}

#[derive(Debug, Default)]
pub(crate) struct Journal {
    keys: BTreeMap<String, Expected>,
    leases: BTreeSet<LeaseId>,
    counts: BTreeMap<u64, u64>,
    counter: u64,
    /// What was begun and not answered, by client.
    pending: BTreeMap<u64, (u64, Step)>,
    /// What was acknowledged at a revision, for as long as history may be asked for it.
    done: BTreeMap<Revision, (u64, u64, Step)>,
    newest: Revision,
    compacted: Revision,
    saved: Revision,
    acknowledged: u64,
    found: u64,
    lost: u64,
    backups: u64,
    restored: u64,
    replayed: u64,
}

fn all(revision: Option<Revision>) -> RangeRequest {
    let request = RangeRequest::new(KeyRange::prefix(""));
    match revision {
        Some(revision) => request.at(revision),
        None => request,
    }
}

async fn state(store: &DurableStore, revision: Option<Revision>) -> Result<State, StoreError> {
    let read = store.range(all(revision)).await?;
    Ok(read
        .items
        .into_iter()
        .map(|kv| (kv.key.clone(), kv))
        .collect())
}

impl Journal {
    pub(crate) fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    pub(crate) fn summary(&self) -> String {
        format!(
            "{} steps acknowledged, the last at revision {}; of those under way {} were found and {} not; {} commits of history \
             replayed, {} backups read, {} restored stores opened",
            self.acknowledged,
            self.newest,
            self.found,
            self.lost,
            self.replayed,
            self.backups,
            self.restored,
        )
    }

    /// Takes a line of a child.
    pub(crate) fn take_down(&mut self, line: &str) {
        let words: Vec<_> = line.trim_start_matches('#').split_whitespace().collect();
        let number = |at: usize| -> u64 { words[at].parse().expect("a number") };
        match words[0] {
            "open" | "restored" => {}
            "compacted" => self.compacted = self.compacted.max(Revision(number(1))),
            "saved" => self.saved = self.saved.max(Revision(number(1))),
            "begin" => {
                let step = parse(&words[3..]);
                let before = self.pending.insert(number(1), (number(2), step));
                assert!(before.is_none(), "a client does one thing at a time");
            }
            "refused" => {
                self.pending.remove(&number(1)).expect("it was begun");
            }
            "done" => {
                let (client, revision) = (number(1), Revision(number(3)));
                let (at, step) = self.pending.remove(&client).expect("it was begun");
                assert_eq!(at, number(2));
                let known = (!revision.is_zero()).then_some(revision);
                if let Some(revision) = known {
                    let other = self.done.insert(revision, (client, at, step.clone()));
                    assert!(other.is_none(), "revision {revision} was given to two");
                }
                self.newest = self.newest.max(revision);
                self.acknowledged += 1;
                self.apply(client, at, &step, known);
            }
            other => panic!("the child said {other:?}"),
        }
    }

    fn apply(&mut self, client: u64, at: u64, step: &Step, revision: Option<Revision>) {
        for (key, lease) in &step.puts {
            let before = self.keys.get(key);
            let expected = Expected {
                client,
                step: at,
                lease: *lease,
                version: before.map_or(1, |before| before.version + 1),
                created: before.map_or(revision, |before| before.created),
                modified: revision,
            };
            self.keys.insert(key.clone(), expected);
        }
        for key in &step.deletes {
            self.keys.remove(key).expect("it was there");
        }
        self.leases.extend(step.grant);
        if let Some(lease) = step.revoke {
            assert!(self.leases.remove(&lease));
        }
        if let Some((all, own)) = step.count {
            self.counter = self.counter.max(all);
            self.counts.insert(client, own);
        }
    }

    /// Finds out what became of the steps that nobody was told of. They are there as a whole or not at all.
    async fn settle(&mut self, store: &DurableStore, state: &State) {
        for (client, (at, step)) in std::mem::take(&mut self.pending) {
            let mut signs = Vec::new();
            for (key, _) in &step.puts {
                let kv = state.get(key.as_bytes());
                signs.push(kv.is_some_and(|kv| author(&kv.value, key) == Some((client, at))));
            }
            for key in &step.deletes {
                signs.push(!state.contains_key(key.as_bytes()));
            }
            if let Some(lease) = step.grant {
                signs.push(store.lease(lease, false).await.is_ok());
            }
            if let Some(lease) = step.revoke {
                signs.push(store.lease(lease, false).await.is_err());
            }
            if let Some((_, own)) = step.count {
                let there = state.get(count_key(client).as_bytes());
                signs.push(there.is_some_and(|kv| kv.value == own.to_string()));
            }
            let found = signs[0];
            assert!(
                signs.iter().all(|&sign| sign == found),
                "a step is half there: {step:?} of client {client} came to {signs:?}"
            );
            if found {
                self.found += 1;
                self.apply(client, at, &step, None);
            } else {
                self.lost += 1;
            }
        }
    }

    /// Looks at a store that was opened after a kill.
    pub(crate) async fn check(&mut self, store: &DurableStore) {
        let revision = store.revision().await.expect("the revision");
        assert!(
            revision >= self.newest,
            "{revision} after {} was acknowledged",
            self.newest
        );
        self.newest = revision;
        let state = state(store, None).await.expect("a read");
        self.settle(store, &state).await;
        let mut found: BTreeMap<&str, &KeyValue> = BTreeMap::new();
        for (key, kv) in &state {
            let key = std::str::from_utf8(key).expect("text");
            if key.starts_with("/client/") {
                found.insert(key, kv);
            }
        }
        assert!(
            found.keys().eq(self.keys.keys()),
            "the keys are not those that were written"
        );
        for (key, kv) in found {
            let expected = self.keys.get_mut(key).expect("the keys are the same");
            assert_eq!(
                author(&kv.value, key),
                Some((expected.client, expected.step)),
                "{key}"
            );
            assert_eq!(kv.lease.map_or(0, |lease| lease.0), expected.lease, "{key}");
            assert_eq!(kv.version, expected.version, "{key}");
            let modified = *expected.modified.get_or_insert(kv.mod_revision);
            let created = *expected.created.get_or_insert(kv.create_revision);
            assert_eq!(
                (kv.create_revision, kv.mod_revision),
                (created, modified),
                "{key}"
            );
            assert!(modified <= revision);
        }
        let leases: BTreeSet<_> = store
            .leases()
            .await
            .expect("the leases")
            .into_iter()
            .collect();
        assert_eq!(leases, self.leases);
        let number = |key: String| -> u64 {
            state.get(key.as_bytes()).map_or(0, |kv| {
                std::str::from_utf8(&kv.value)
                    .expect("text")
                    .parse()
                    .expect("a number")
            })
        };
        let counter = number(COUNTER.to_owned());
        let counts: Vec<_> = (0..CLIENTS)
            .map(|client| number(count_key(client)))
            .collect();
        assert_eq!(
            counter,
            counts.iter().sum::<u64>(),
            "all count alone what they count together"
        );
        assert!(counter >= self.counter);
        self.counter = counter;
        for (client, &count) in (0..).zip(&counts) {
            assert_eq!(count, self.counts.get(&client).copied().unwrap_or(0));
        }
        self.check_history(store, revision, state).await;
    }

    /// What can be read and watched of the past leads to the present, and is what was acknowledged.
    async fn check_history(&mut self, store: &DurableStore, newest: Revision, present: State) {
        let from = match state(store, Some(Revision(1))).await {
            Ok(_) => Revision(1),
            Err(StoreError::Compacted { oldest, .. }) => oldest,
            Err(error) => panic!("{error}"),
        };
        assert!(
            from >= self.compacted,
            "{from} is readable, and {} was compacted",
            self.compacted
        );
        let mut replayed = state(store, Some(from)).await.expect("the oldest state");
        if from < newest {
            let request = WatchRequest {
                keys: KeyRange::prefix(""),
                from: from.next(),
                progress: false,
            };
            let mut watch = store.watch(request).await.expect("a watch");
            let mut last = from;
            while last < newest {
                let item = watch.next().await.expect("an item").expect("no gap");
                let WatchItem::Changes(changes) = item else {
                    continue;
                };
                for commit in changes.chunk_by(|a, b| a.revision() == b.revision()) {
                    assert_eq!(commit[0].revision(), last.next(), "a gap");
                    last = commit[0].revision();
                    self.check_commit(last, commit);
                    for change in commit {
                        match change {
                            Change::Put { kv, prev } => {
                                let before = replayed.insert(kv.key.clone(), kv.clone());
                                assert!(before == *prev, "what was before {}", last);
                            }
                            Change::Delete { key, prev, .. } => {
                                let before = replayed.remove(key);
                                assert!(
                                    before.is_some() && before == *prev,
                                    "what was before {}",
                                    last
                                );
                            }
                        }
                    }
                    self.replayed += 1;
                    if last.0 % 64 == 0 {
                        let read = state(store, Some(last)).await.expect("a readable revision");
                        assert!(
                            read == replayed,
                            "revision {last} is another by reading and by watching"
                        );
                    }
                }
            }
        }
        assert!(replayed == present, "history does not lead to the present");
        self.done = self.done.split_off(&from);
    }

    fn check_commit(&self, revision: Revision, changes: &[Change]) {
        let Some((client, at, step)) = self.done.get(&revision) else {
            return;
        };
        let mut puts: Vec<_> = step.puts.iter().map(|(key, _)| key.clone()).collect();
        if step.count.is_some() {
            puts.extend([COUNTER.to_owned(), count_key(*client)]);
        }
        let (mut put, mut deleted) = (Vec::new(), Vec::new());
        for change in changes {
            let key = String::from_utf8(change.key().to_vec()).expect("text");
            match change {
                Change::Put { kv, .. } => {
                    if step.count.is_none() {
                        assert_eq!(author(&kv.value, &key), Some((*client, *at)));
                    }
                    put.push(key);
                }
                Change::Delete { .. } => deleted.push(key),
            }
        }
        puts.sort();
        put.sort();
        deleted.sort();
        assert_eq!(
            (put, deleted),
            (puts, step.deletes.clone()),
            "revision {revision}"
        );
    }

    /// What has the name of a backup is whole, and what has that of a restored store is one.
    pub(crate) async fn check_backups(&mut self, store: &DurableStore, dir: &Path, env: &Env) {
        let newest = store.revision().await.expect("the revision");
        let path = dir.join(BACKUP);
        if path.exists() {
            let mut keys = State::new();
            let info = snapshot::read(&File::open(&path).expect("the backup"), &mut |record| {
                match record {
                    Record::Put(kv) => drop(keys.insert(kv.key.clone(), kv)),
                    Record::Delete { key, .. } => drop(keys.remove(&key)),
                    Record::Lease { .. } => {}
                }
                Ok(())
            })
            .expect("a backup that has its name is whole");
            assert!(info.checksum && info.revision >= self.saved && info.revision <= newest);
            if let Ok(then) = state(store, Some(info.revision)).await {
                assert!(
                    then == keys,
                    "the backup is not the state at {}",
                    info.revision
                );
            }
            self.backups += 1;
        }
        for entry in std::fs::read_dir(dir).expect("the directory") {
            let entry = entry.expect("an entry");
            let name = entry.file_name().into_string().expect("a name");
            let Some(revision) = name
                .strip_prefix(RESTORED)
                .and_then(|rest| rest.strip_prefix('-'))
            else {
                continue;
            };
            // What was not finished has another name.
            if let Ok(revision) = revision.parse() {
                let restored = DurableStore::open(entry.path(), options(), env.clone())
                    .expect("a restored store opens");
                let at = restored.revision().await.expect("its revision");
                assert_eq!(at, Revision(revision));
                let own = state(&restored, None).await.expect("its keys");
                assert!(
                    !own.is_empty() || revision == 1,
                    "a restored store is empty"
                );
                for (key, kv) in &own {
                    let key = std::str::from_utf8(key).expect("text");
                    if key.starts_with("/client/") {
                        assert!(author(&kv.value, key).is_some(), "{key}");
                    }
                }
                if let Ok(then) = state(store, Some(at)).await {
                    assert!(then == own, "the restored store is not the state at {at}");
                }
                restored.close().await;
                self.restored += 1;
            } else {
                assert!(revision.ends_with(".unfinished"), "{name}");
            }
            std::fs::remove_dir_all(entry.path()).expect("room for the next");
        }
    }
}

fn parse(words: &[&str]) -> Step {
    let mut step = Step::default();
    for word in words {
        let parts: Vec<_> = word.split(':').collect();
        let number = |at: usize| -> i64 { parts[at].parse().expect("a number") };
        match parts[0] {
            "put" => step.puts.push((parts[1].to_owned(), number(2))),
            "delete" => step.deletes.push(parts[1].to_owned()),
            "grant" => step.grant = Some(LeaseId(number(1))),
            "revoke" => step.revoke = Some(LeaseId(number(1))),
            "count" => step.count = Some((number(1).cast_unsigned(), number(2).cast_unsigned())),
            other => panic!("the child said {other:?}"),
        }
    }
    step
}
