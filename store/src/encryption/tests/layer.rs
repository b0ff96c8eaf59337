use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use orlop_core::conformance::store::{Subject, store};
use orlop_core::env::{Env, SimEnv, SimOptions};
use orlop_core::revision::Revision;
use orlop_core::store::{
    Change, Commit, Compare, Condition, KeyRange, KeyValue, LeaseId, Op, Operand, PutLease,
    RangeRequest, Relation, Step, StepResult, Store, StoreError, Transaction, Txn, WatchItem,
    WatchRequest,
};
use serde_json::json;

use super::{config, provider};
use crate::MemoryStore;
use crate::encryption::{EncryptedStore, EncryptionConfiguration, RewritePace, Rewritten};

const SECRET: &str = "/registry/core/secrets/default/a";
const MAP: &str = "/registry/core/configmaps/default/a";

fn conforms(config: &EncryptionConfiguration, seeds: u64) {
    for seed in 0..seeds {
        let sim = SimEnv::with_options(SimOptions {
            seed,
            shuffle: seed > 0,
            ..SimOptions::default()
        });
        let env = sim.env();
        let config = config.clone();
        sim.block_on(async move {
            store(|| async {
                let inner = Arc::new(MemoryStore::new(env.clone()));
                let layer = EncryptedStore::new(inner, &config);
                Subject::new(Arc::new(layer), env.clone())
            })
            .await;
        });
    }
}

#[test]
fn conforms_with_every_provider() {
    for kind in ["aesgcm", "aescbc", "secretbox"] {
        // Ciphers that are not optimised are slow: the order of tasks is shuffled without them, below.
        conforms(&config(&[(&["*.*"], &[provider(kind, &[("k", 0)])])]), 1);
    }
}

#[test]
fn conforms_without_a_configuration() {
    conforms(&EncryptionConfiguration::none(), 2);
    conforms(&config(&[(&["*.*"], &[json!({"identity": {}})])]), 2);
}

/// A memory store, and the same with encryption.
fn both(env: &Env, config: &EncryptionConfiguration) -> (Arc<dyn Store>, Arc<EncryptedStore>) {
    let inner: Arc<dyn Store> = Arc::new(MemoryStore::new(env.clone()));
    (inner.clone(), Arc::new(EncryptedStore::new(inner, config)))
}

async fn get(store: &dyn Store, key: &str) -> Result<KeyValue, StoreError> {
    let mut found = store
        .range(RangeRequest::new(KeyRange::key(key.to_owned())))
        .await?;
    Ok(found.items.pop().expect("a key"))
}

async fn put(store: &dyn Store, key: &str, value: &str) {
    let txn = Txn::put(key.to_owned(), value.to_owned());
    assert!(matches!(
        store.commit(txn).await.unwrap(),
        Commit::Applied { .. }
    ));
}

fn corrupt<T>(answer: Result<T, StoreError>) -> String {
    match answer {
        Err(StoreError::Corrupt(why)) => why,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it can be read"),
    }
}

#[test]
fn each_resource_has_its_own_rule() {
    let sim = SimEnv::new(1);
    let env = sim.env();
    sim.block_on(async move {
        let config = config(&[
            (&["secrets"], &[provider("aesgcm", &[("s", 0)])]),
            (&["*.apps"], &[provider("secretbox", &[("a", 1)])]),
            (
                &["configmaps"],
                &[json!({"identity": {}}), provider("aescbc", &[("c", 2)])],
            ),
            (&["*.*"], &[provider("aescbc", &[("rest", 3)])]),
        ]);
        let (inner, store) = both(&env, &config);
        for (key, begins) in [
            (SECRET, "k8s:enc:aesgcm:v1:s:"),
            (
                "/registry/apps/deployments/default/a",
                "k8s:enc:secretbox:v1:a:",
            ),
            (MAP, "plain"),
            ("/registry/core/pods/default/a", "k8s:enc:aescbc:v1:rest:"),
            (
                "/registry/secrets.apps/secrets/a",
                "k8s:enc:aescbc:v1:rest:",
            ),
            ("/elsewhere", "k8s:enc:aescbc:v1:rest:"),
        ] {
            put(&*store, key, "plain text").await;
            let stored = get(&*inner, key).await.unwrap().value;
            assert!(
                stored.starts_with(begins.as_bytes()),
                "{key}: {}",
                stored.escape_ascii()
            );
            assert_eq!(stored.starts_with(b"plain"), begins == "plain");
            assert_eq!(
                get(&*store, key).await.unwrap().value.as_ref(),
                b"plain text"
            );
        }
        assert_eq!(
            store.key_writes(),
            [
                ("aesgcm:s".to_owned(), 1),
                ("secretbox:a".to_owned(), 1),
                ("aescbc:c".to_owned(), 0),
                ("aescbc:rest".to_owned(), 3)
            ]
        );
    });
}

#[test]
fn what_is_read_in_every_way_is_plain() {
    let sim = SimEnv::new(1);
    let env = sim.env();
    sim.block_on(async move {
        let config = config(&[(&["secrets"], &[provider("aesgcm", &[("s", 0)])])]);
        let (_, store) = both(&env, &config);
        let mut watch = store
            .watch(WatchRequest {
                keys: KeyRange::prefix("/registry/"),
                from: Revision(2),
                progress: false,
            })
            .await
            .unwrap();
        put(&*store, SECRET, "one").await;
        put(&*store, SECRET, "two").await;
        let refused = store.commit(Txn::create(SECRET, "three")).await.unwrap();
        let Commit::Refused { current, .. } = refused else {
            panic!("{refused:?}");
        };
        assert_eq!(current[0].as_ref().unwrap().value.as_ref(), b"two");
        let at = RangeRequest::new(KeyRange::key(SECRET)).at(Revision(2));
        let past = store.range(at).await.unwrap();
        assert_eq!(past.items[0].value.as_ref(), b"one");
        store
            .commit(Txn::delete(SECRET, Revision(3)))
            .await
            .unwrap();
        let mut seen = Vec::new();
        while seen.len() < 3 {
            if let WatchItem::Changes(changes) = watch.next().await.unwrap().unwrap() {
                seen.extend(changes.iter().cloned());
            }
        }
        let text = |kv: &Option<KeyValue>| {
            kv.as_ref()
                .map(|kv| String::from_utf8(kv.value.to_vec()).unwrap())
        };
        let told: Vec<_> = seen
            .iter()
            .map(|change| match change {
                Change::Put { kv, prev } => (text(&Some(kv.clone())), text(prev)),
                Change::Delete { prev, .. } => (None, text(prev)),
            })
            .collect();
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(
            told,
            [
                (some("one"), None),
                (some("two"), some("one")),
                (None, some("two"))
            ]
        );
    });
}

fn when_value(value: &'static str) -> Condition {
    Condition {
        keys: KeyRange::key(SECRET),
        relation: Relation::Equal,
        operand: Operand::Value(Bytes::from_static(value.as_bytes())),
    }
}

fn write(value: &'static str, previous: bool) -> Step {
    Step::Put {
        key: SECRET.into(),
        value: Some(value.into()),
        lease: PutLease::Set(None),
        previous,
    }
}

#[test]
fn conditions_look_at_the_plain_values() {
    let sim = SimEnv::new(1);
    let env = sim.env();
    sim.block_on(async move {
        let config = config(&[(&["secrets"], &[provider("secretbox", &[("s", 0)])])]);
        let (inner, store) = both(&env, &config);
        put(&*store, SECRET, "one").await;
        let by_value = |value: &'static str, new: &'static str| Txn {
            compare: vec![Compare::Value(SECRET.into(), value.into())],
            ..Txn::put(SECRET, new)
        };
        let refused = store.commit(by_value("two", "three")).await.unwrap();
        let Commit::Refused { current, .. } = refused else {
            panic!("{refused:?}");
        };
        assert_eq!(current[0].as_ref().unwrap().value.as_ref(), b"one");
        let applied = store.commit(by_value("one", "two")).await.unwrap();
        assert!(matches!(applied, Commit::Applied { .. }));

        // The condition of the nested transaction looks at what was before, as the outer one does.
        let result = store
            .transact(Transaction {
                conditions: vec![when_value("two")],
                success: vec![
                    Step::Nested(Transaction {
                        conditions: vec![when_value("three")],
                        success: vec![write("wrong", false)],
                        failure: vec![write("three", true)],
                    }),
                    Step::Read(RangeRequest::new(KeyRange::key(SECRET))),
                ],
                failure: vec![],
            })
            .await
            .unwrap();
        assert!(result.succeeded);
        let [StepResult::Nested(nested), StepResult::Read(read)] = result.steps.as_slice() else {
            panic!("{:?}", result.steps);
        };
        assert!(!nested.succeeded);
        let [StepResult::Put { previous: Some(kv) }] = nested.steps.as_slice() else {
            panic!("{:?}", nested.steps);
        };
        assert_eq!(kv.value.as_ref(), b"two");
        assert_eq!(read.items[0].value.as_ref(), b"three");
        let result = store
            .transact(Transaction {
                conditions: vec![when_value("two")],
                success: vec![write("wrong", false)],
                failure: vec![Step::Delete {
                    keys: KeyRange::key(SECRET),
                    previous: true,
                }],
            })
            .await
            .unwrap();
        assert!(!result.succeeded);
        let [StepResult::Delete { previous, .. }] = result.steps.as_slice() else {
            panic!("{:?}", result.steps);
        };
        assert_eq!(previous[0].value.as_ref(), b"three");
        assert_eq!(inner.revision().await.unwrap(), Revision(5));
    });
}

#[test]
fn writers_by_value_do_not_lose_each_other_s_writes() {
    let sim = SimEnv::with_options(SimOptions {
        seed: 5,
        shuffle: true,
        ..SimOptions::default()
    });
    let env = sim.env();
    sim.block_on(async move {
        let config = config(&[(&["secrets"], &[provider("aesgcm", &[("s", 0)])])]);
        let inner: Arc<dyn Store> = Arc::new(MemoryStore::new(env.clone()));
        // Latency makes them meet.
        let slow = crate::layers::Delayed::new(
            inner,
            env.clone(),
            crate::layers::Latency::Uniform(Duration::from_millis(1), Duration::from_millis(9)),
        );
        let store = Arc::new(EncryptedStore::new(Arc::new(slow), &config));
        put(&*store, SECRET, "0").await;
        let mut writers = Vec::new();
        for _ in 0..4 {
            let store = store.clone();
            writers.push(async move {
                for _ in 0..10 {
                    loop {
                        let old = get(&*store, SECRET).await.unwrap().value;
                        let number: u32 = std::str::from_utf8(&old).unwrap().parse().unwrap();
                        let txn = Txn {
                            compare: vec![Compare::Value(SECRET.into(), old)],
                            ..Txn::put(SECRET, (number + 1).to_string())
                        };
                        if let Commit::Applied { .. } = store.commit(txn).await.unwrap() {
                            break;
                        }
                    }
                }
            });
        }
        futures::future::join_all(writers).await;
        assert_eq!(get(&*store, SECRET).await.unwrap().value.as_ref(), b"40");
    });
}

#[test]
fn what_cannot_be_decrypted_is_an_error_that_names_the_key() {
    let sim = SimEnv::new(1);
    let env = sim.env();
    sim.block_on(async move {
        let gcm = config(&[(
            &["secrets", "configmaps"],
            &[provider("aesgcm", &[("s", 0)])],
        )]);
        let (inner, store) = both(&env, &gcm);
        put(&*store, SECRET, "plain text").await;
        let name = format!("unable to transform key \"{SECRET}\": ");

        // The wrong key of the right name.
        store.reload(&config(&[(
            &["secrets"],
            &[provider("aesgcm", &[("s", 9)])],
        )]));
        assert_eq!(
            corrupt(get(&*store, SECRET).await),
            format!("{name}aesgcm:s: cipher: message authentication failed")
        );
        // No key of that name, and no provider.
        store.reload(&config(&[(
            &["secrets"],
            &[provider("aesgcm", &[("t", 0)])],
        )]));
        assert_eq!(
            corrupt(get(&*store, SECRET).await),
            format!("{name}no matching key was found for the provided AES transformer")
        );
        store.reload(&config(&[(
            &["secrets"],
            &[provider("secretbox", &[("s", 0)]), json!({"identity": {}})],
        )]));
        assert_eq!(
            corrupt(get(&*store, SECRET).await),
            format!("{name}no matching prefix found")
        );
        // No rule.
        store.reload(&EncryptionConfiguration::none());
        assert_eq!(
            corrupt(get(&*store, SECRET).await),
            format!("{name}identity transformer tried to read encrypted data")
        );
        // Two providers with keys of one name: both are tried.
        store.reload(&config(&[(
            &["secrets"],
            &[
                provider("aesgcm", &[("s", 9)]),
                provider("aesgcm", &[("s", 0)]),
            ],
        )]));
        assert_eq!(
            get(&*store, SECRET).await.unwrap().value.as_ref(),
            b"plain text"
        );

        // What one of a range is, the range is; what is no encrypted value where one must be, is none.
        store.reload(&gcm);
        put(&*inner, MAP, "in plain").await;
        assert_eq!(
            corrupt(
                store
                    .range(RangeRequest::new(KeyRange::prefix("/registry/")))
                    .await
            ),
            format!("unable to transform key \"{MAP}\": no matching prefix found")
        );

        // A value that is put in another one's place.
        let sealed = get(&*inner, SECRET).await.unwrap().value;
        inner.commit(Txn::put(MAP, sealed)).await.unwrap();
        assert_eq!(
            corrupt(get(&*store, MAP).await),
            format!(
                "unable to transform key \"{MAP}\": aesgcm:s: cipher: message authentication failed"
            )
        );
    });
}

#[test]
fn a_watch_ends_with_what_cannot_be_decrypted() {
    let sim = SimEnv::new(1);
    let env = sim.env();
    sim.block_on(async move {
        let config = config(&[(&["secrets"], &[provider("aesgcm", &[("s", 0)])])]);
        let (inner, store) = both(&env, &config);
        let mut watch = store
            .watch(WatchRequest {
                keys: KeyRange::prefix("/"),
                from: Revision(2),
                progress: false,
            })
            .await
            .unwrap();
        put(&*store, SECRET, "good").await;
        assert!(matches!(
            watch.next().await,
            Some(Ok(WatchItem::Changes(_)))
        ));
        put(
            &*inner,
            SECRET,
            "k8s:enc:aesgcm:v1:s:nonsense that is long enough",
        )
        .await;
        put(&*store, SECRET, "good again").await;
        assert!(matches!(
            watch.next().await,
            Some(Err(StoreError::Corrupt(_)))
        ));
        assert!(watch.next().await.is_none());
    });
}

#[test]
fn a_key_is_rotated() {
    let sim = SimEnv::new(1);
    let env = sim.env();
    sim.block_on(async move {
        let old = provider("aescbc", &[("old", 0)]);
        let new = provider("aesgcm", &[("new", 7)]);
        let rules =
            |providers: &[serde_json::Value]| config(&[(&["secrets", "configmaps"], providers)]);
        let (inner, store) = both(&env, &rules(std::slice::from_ref(&old)));
        for n in 0..1_200 {
            let key = format!("/registry/core/secrets/default/s{n:04}");
            put(&*store, &key, &format!("value {n}")).await;
        }
        let lease = store.grant_lease(Some(LeaseId(9)), 3_600).await.unwrap();
        let with_lease = Txn {
            compare: vec![],
            ops: vec![Op::Put {
                key: MAP.into(),
                value: "leased".into(),
                lease: Some(lease),
            }],
        };
        store.commit(with_lease).await.unwrap();
        put(&*store, "/registry/core/pods/default/p", "not encrypted").await;
        let pace = RewritePace::per_second(env.clone(), 1_000);
        assert_eq!(
            store.rewrite_stale(&pace).await.unwrap(),
            Rewritten {
                examined: 1_202,
                ..Rewritten::default()
            }
        );

        // All servers know the new key, then all write with it.
        store.reload(&rules(&[old.clone(), new.clone()]));
        assert_eq!(store.rewrite_stale(&pace).await.unwrap().rewritten, 0);
        store.reload(&rules(&[new.clone(), old.clone()]));
        let begun = env.now();
        let done = store.rewrite_stale(&pace).await.unwrap();
        assert_eq!(
            done,
            Rewritten {
                examined: 1_202,
                rewritten: 1_201,
                ..Rewritten::default()
            }
        );
        assert!(
            env.now().since(begun) >= Duration::from_millis(1_200),
            "it takes its time"
        );
        assert_eq!(store.rewrite_stale(&pace).await.unwrap().rewritten, 0);

        // Nothing needs the old one any more.
        store.reload(&rules(&[new]));
        let all = store
            .range(RangeRequest::new(KeyRange::prefix(
                "/registry/core/secrets/",
            )))
            .await
            .unwrap();
        assert_eq!(all.items.len(), 1_200);
        for (n, kv) in all.items.iter().enumerate() {
            assert_eq!(kv.value, format!("value {n}"));
            assert_eq!(kv.version, 2);
        }
        let map = get(&*store, MAP).await.unwrap();
        assert_eq!(
            (map.value.as_ref(), map.lease),
            (b"leased".as_ref(), Some(lease))
        );
        let stored = get(&*inner, MAP).await.unwrap().value;
        assert!(stored.starts_with(b"k8s:enc:aesgcm:v1:new:"));

        // Away from encryption.
        store.reload(&rules(&[
            json!({"identity": {}}),
            provider("aesgcm", &[("new", 7)]),
        ]));
        assert_eq!(store.rewrite_stale(&pace).await.unwrap().rewritten, 1_201);
        assert_eq!(get(&*inner, MAP).await.unwrap().value.as_ref(), b"leased");
    });
}

#[test]
fn a_rewrite_leaves_alone_what_it_cannot_read_or_what_others_write() {
    let sim = SimEnv::new(1);
    let env = sim.env();
    sim.block_on(async move {
        let config = config(&[(
            &["secrets"],
            &[provider("aesgcm", &[("s", 0)]), json!({"identity": {}})],
        )]);
        let inner: Arc<dyn Store> = Arc::new(MemoryStore::new(env.clone()));
        put(&*inner, SECRET, "k8s:enc:aesgcm:v1:lost:and nobody has the key").await;
        for n in 0..20 {
            put(&*inner, &format!("/registry/core/secrets/default/b{n:02}"), "plain").await;
        }
        let slow = crate::layers::Delayed::new(
            inner.clone(),
            env.clone(),
            crate::layers::Latency::Fixed(Duration::from_millis(10)),
        );
        let store = EncryptedStore::new(Arc::new(slow), &config);
        let (writer, when) = (inner.clone(), env.clone());
        env.spawn("writer", async move {
            when.sleep(Duration::from_millis(35)).await;
            put(&*writer, "/registry/core/secrets/default/b19", "newer").await;
        });
        let done = store
            .rewrite_stale(&RewritePace::per_second(env.clone(), 0))
            .await
            .unwrap();
        assert_eq!(
            done,
            Rewritten {
                examined: 21,
                rewritten: 19,
                overtaken: 1,
                unreadable: 1,
                first_unreadable: Some(format!(
                    "corrupt: unable to transform key \"{SECRET}\": no matching key was found for the provided AES transformer"
                )),
            }
        );
        let newer = get(&*inner, "/registry/core/secrets/default/b19").await.unwrap();
        assert_eq!(newer.value.as_ref(), b"newer");
        assert_eq!(newer.version, 2);
    });
}
