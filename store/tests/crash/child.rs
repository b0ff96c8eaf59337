//! The process that is killed.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use orlop_core::env::Env;
use orlop_core::revision::Revision;
use orlop_core::store::{
    Commit, Compare, KeyRange, KeyValue, LeaseId, Op, RangeRequest, Store, StoreError, Txn,
};
use orlop_store::{DurableStore, Upkeep};

use crate::options;
use crate::workload::{CLIENTS, COUNTER, KEYS, Random, count_key, key, prefix, value};

/// Names within the directory.
pub(crate) const STORE: &str = "store";
pub(crate) const BACKUP: &str = "backup.db";
pub(crate) const RESTORED: &str = "restored";

/// Says something before anything else is done. A line is one write, so it is there as a whole or not at all.
fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(format!("#{text}\n").as_bytes())
        .expect("the parent listens");
    out.flush().expect("the parent listens");
}

/// Works until it is killed.
pub(crate) fn run(dir: &Path, seed: u64, round: u64) {
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .expect("a runtime")
    };
    runtime().block_on(async {
        let env = Env::tokio();
        let store =
            DurableStore::open(dir.join(STORE), options(), env.clone()).expect("the store opens");
        let store = Arc::new(store);
        say("open");
        let seed = seed ^ round << 32;
        let (own, dir) = (store.clone(), dir.to_owned());
        std::thread::spawn(move || runtime().block_on(operate(&own, &dir, Random::new(seed))));
        let clients = (0..CLIENTS).map(|id| {
            let client = Client {
                store: &store,
                id,
                random: Random::new(seed ^ (id + 1)),
                step: round << 32,
                lease: None,
            };
            client.run()
        });
        futures::future::join_all(clients).await;
    });
}

/// What an operator does meanwhile: compactions, checkpoints, backups, and stores made of them.
async fn operate(store: &DurableStore, dir: &Path, mut random: Random) {
    let env = Env::tokio();
    loop {
        match random.below(4) {
            0 => {
                let newest = store.revision().await.expect("the revision");
                let to = Revision(newest.0.saturating_sub(random.below(200)));
                match store.compact(to).await {
                    Ok(()) => say(&format!("compacted {to}")),
                    Err(StoreError::Compacted { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            1 => {
                store.defragment().await.expect("a defragmentation");
                let size = store.size();
                assert!(size.in_use > 0 && size.in_use <= size.total, "{size:?}");
            }
            _ => match store.backup(dir.join(BACKUP), true).await {
                Ok(info) => {
                    say(&format!("saved {}", info.revision));
                    let to = dir.join(format!("{RESTORED}-{}", info.revision));
                    let restored = DurableStore::restore(dir.join(BACKUP), &to, &env);
                    if restored.is_err() && to.exists() {
                        // Nothing was written since it was made before.
                        continue;
                    }
                    restored.expect("a restore");
                    say(&format!("restored {}", info.revision));
                }
                // The compactions above overtook it.
                Err(StoreError::Compacted { .. }) => {}
                Err(error) => panic!("{error}"),
            },
        }
    }
}

struct Client<'a> {
    store: &'a DurableStore,
    id: u64,
    random: Random,
    step: u64,
    lease: Option<LeaseId>,
}

impl Client<'_> {
    async fn run(mut self) {
        let mut keys = self.keys().await;
        loop {
            let number = self.random.below(KEYS);
            match self.random.below(12) {
                0..4 => {
                    self.write(&mut keys, &[number], Vec::new(), None).await;
                }
                4..6 => {
                    let compare = match keys.get(&key(self.id, number)) {
                        Some(kv) => Compare::ModRevision(kv.key.clone(), kv.mod_revision),
                        None => Compare::Version(key(self.id, number).into(), 0),
                    };
                    self.write(&mut keys, &[number], vec![compare], None).await;
                }
                6..8 => {
                    let numbers = [number, (number + 1) % KEYS, (number + 5) % KEYS];
                    self.write(&mut keys, &numbers, Vec::new(), None).await;
                }
                8 => self.delete(&mut keys, number).await,
                9 => self.lease(&mut keys, number).await,
                _ => self.count().await,
            }
        }
    }

    /// What there is of the client's keys.
    async fn keys(&self) -> BTreeMap<String, KeyValue> {
        let request = RangeRequest::new(KeyRange::prefix(prefix(self.id)));
        let read = self.store.range(request).await.expect("a read");
        let name = |kv: &KeyValue| String::from_utf8(kv.key.to_vec()).expect("text");
        read.items.into_iter().map(|kv| (name(&kv), kv)).collect()
    }

    fn begin(&mut self, what: &str) -> u64 {
        self.step += 1;
        say(&format!("begin {} {}{what}", self.id, self.step));
        self.step
    }

    /// Does a transaction; `None` when its conditions did not hold.
    async fn commit(&self, step: u64, txn: Txn) -> Option<Revision> {
        match self.store.commit(txn).await.expect("a commit") {
            Commit::Applied { revision, .. } => {
                say(&format!("done {} {step} {revision}", self.id));
                Some(revision)
            }
            Commit::Refused { .. } => {
                say(&format!("refused {} {step}", self.id));
                None
            }
        }
    }

    async fn write(
        &mut self,
        keys: &mut BTreeMap<String, KeyValue>,
        numbers: &[u64],
        compare: Vec<Compare>,
        lease: Option<LeaseId>,
    ) {
        let names: Vec<_> = numbers.iter().map(|&number| key(self.id, number)).collect();
        let hung = lease.map_or(0, |lease| lease.0);
        let what: String = names
            .iter()
            .map(|name| format!(" put:{name}:{hung}"))
            .collect();
        let step = self.begin(&what);
        let put = |name: &String| Op::Put {
            key: name.clone().into(),
            value: value(self.id, step, name).into(),
            lease,
        };
        let txn = Txn {
            compare,
            ops: names.iter().map(put).collect(),
        };
        let revision = self
            .commit(step, txn)
            .await
            .expect("nobody else writes these keys");
        for name in names {
            let kv = KeyValue {
                key: name.clone().into(),
                value: Bytes::new(),
                create_revision: revision,
                mod_revision: revision,
                version: 1,
                lease,
            };
            keys.insert(name, kv);
        }
    }

    /// Deletes some keys beside each other.
    async fn delete(&mut self, keys: &mut BTreeMap<String, KeyValue>, number: u64) {
        let (from, to) = (key(self.id, number), key(self.id, number + 4));
        let gone: Vec<_> = keys
            .range(from.clone()..to.clone())
            .map(|(name, _)| name.clone())
            .collect();
        if gone.is_empty() {
            return;
        }
        let what: String = gone.iter().map(|name| format!(" delete:{name}")).collect();
        let step = self.begin(&what);
        let txn = Txn {
            compare: Vec::new(),
            ops: vec![Op::Delete(KeyRange::Span(from.into(), to.into()))],
        };
        self.commit(step, txn).await.expect("it has no conditions");
        keys.retain(|name, _| !gone.contains(name));
    }

    /// Grants a lease, hangs keys on it, or ends it.
    async fn lease(&mut self, keys: &mut BTreeMap<String, KeyValue>, number: u64) {
        let Some(lease) = self.lease else {
            let step = self.step + 1;
            let lease = LeaseId((step << 4 | self.id).cast_signed());
            self.begin(&format!(" grant:{}", lease.0));
            self.store
                .grant_lease(Some(lease), 3600)
                .await
                .expect("a lease");
            say(&format!("done {} {step} 0", self.id));
            self.lease = Some(lease);
            return;
        };
        if self.random.below(3) > 0 {
            return self.write(keys, &[number], Vec::new(), Some(lease)).await;
        }
        let gone: Vec<_> = keys
            .iter()
            .filter(|(_, kv)| kv.lease == Some(lease))
            .map(|(name, _)| name.clone())
            .collect();
        let deletes: String = gone.iter().map(|name| format!(" delete:{name}")).collect();
        let step = self.begin(&format!(" revoke:{}{deletes}", lease.0));
        self.store.revoke_lease(lease).await.expect("a revocation");
        say(&format!("done {} {step} 0", self.id));
        keys.retain(|name, _| !gone.contains(name));
        self.lease = None;
    }

    /// Counts up what all count, and what the client counts alone, as one step.
    async fn count(&mut self) {
        let read = |key: String| async {
            let read = self
                .store
                .range(RangeRequest::new(KeyRange::key(key)))
                .await;
            read.expect("a read").items.into_iter().next()
        };
        let number = |kv: &Option<KeyValue>| -> u64 {
            kv.as_ref().map_or(0, |kv| {
                let text = std::str::from_utf8(&kv.value).expect("text");
                text.parse().expect("a number")
            })
        };
        let (all, own) = (
            read(COUNTER.to_owned()).await,
            read(count_key(self.id)).await,
        );
        let at = all.as_ref().map_or(Revision::ZERO, |kv| kv.mod_revision);
        let (all, own) = (number(&all) + 1, number(&own) + 1);
        let step = self.begin(&format!(" count:{all}:{own}"));
        let put = |key: String, number: u64| Op::Put {
            key: key.into(),
            value: number.to_string().into(),
            lease: None,
        };
        let txn = Txn {
            compare: vec![Compare::ModRevision(COUNTER.into(), at)],
            ops: vec![put(COUNTER.to_owned(), all), put(count_key(self.id), own)],
        };
        // Another one may have been faster.
        self.commit(step, txn).await;
    }
}
