//! Clusters of real etcd for tests.

#[path = "../../support/real_etcd.rs"]
mod real_etcd;
mod relay;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use futures::StreamExt;
use orlop_core::env::Env;
use orlop_core::revision::Revision;
use orlop_core::store::{
    Change, Commit, KeyRange, RangeRequest, Store, StoreError, Txn, WatchItem, WatchRequest,
    WatchStream,
};
use orlop_store::{EtcdOptions, EtcdStore};

pub(crate) use self::real_etcd::{Cluster, Settings, free_ports};
pub(crate) use self::relay::{Relay, relay_unix};

impl Settings {
    pub(crate) fn args<'a>(args: impl IntoIterator<Item = &'a str>) -> Self {
        Self {
            args: args.into_iter().map(str::to_owned).collect(),
            https: false,
        }
    }
}

impl Cluster {
    /// Starts a cluster; `None`, after saying so, where there is no etcd.
    pub(crate) fn start(test: &str, size: usize) -> Option<Self> {
        Self::start_with(test, size, Settings::default())
    }

    pub(crate) fn size(&self) -> usize {
        self.members.len()
    }

    pub(crate) fn endpoints(&self) -> Vec<String> {
        (0..self.size()).map(|n| self.endpoint(n)).collect()
    }

    /// Options for all members in order.
    pub(crate) fn options(&self) -> EtcdOptions {
        EtcdOptions::new(self.endpoints())
    }

    /// Connects, waiting for the cluster to come up.
    pub(crate) async fn connect(&self) -> EtcdStore {
        self.connect_with(self.options()).await
    }

    pub(crate) async fn connect_with(&self, options: EtcdOptions) -> EtcdStore {
        match EtcdStore::connect(options, Env::tokio()).await {
            Ok(store) => store,
            Err(error) => panic!("no connection to etcd: {error}\n{}", self.logs()),
        }
    }

    /// What the members have said.
    pub(crate) fn logs(&self) -> String {
        self.members
            .iter()
            .map(|member| std::fs::read_to_string(&member.log).unwrap_or_default())
            .collect()
    }

    /// Kills a member: it gets no chance to say goodbye.
    pub(crate) fn kill(&mut self, member: usize) {
        self.members[member].kill();
    }

    /// Starts a member that was killed, with the data that it had.
    pub(crate) fn restart(&mut self, member: usize) {
        self.members[member].start();
    }

    /// Puts the data of a member, which must not run, back to what a snapshot has.
    pub(crate) fn restore(&self, member: usize, snapshot: &Path) {
        let member = &self.members[member];
        let of = |name: &str| {
            let arg = member.args.iter().find(|arg| arg.starts_with(name));
            arg.expect("an argument of etcd").clone()
        };
        let data = of("--data-dir=").replace("--data-dir=", "");
        std::fs::remove_dir_all(&data).expect("its data");
        let output = Command::new("etcdctl")
            .env("ETCDCTL_API", "3")
            .args(["snapshot", "restore"])
            .arg(snapshot)
            .args(
                [
                    "--name=",
                    "--data-dir=",
                    "--initial-cluster=",
                    "--initial-advertise-peer-urls=",
                ]
                .map(of),
            )
            .output()
            .expect("etcdctl runs");
        assert!(output.status.success(), "{output:?}");
    }

    fn signal(&self, member: usize, signal: &str) {
        let child = self.members[member].child.as_ref().expect("it runs");
        let status = Command::new("kill")
            .args([signal, &child.id().to_string()])
            .status()
            .expect("kill runs");
        assert!(status.success(), "kill {signal}");
    }

    /// Stops a member where it stands, its connections open.
    pub(crate) fn freeze(&self, member: usize) {
        self.signal(member, "-STOP");
    }

    pub(crate) fn thaw(&self, member: usize) {
        self.signal(member, "-CONT");
    }

    /// Runs `etcdctl` on one member and returns what it printed.
    pub(crate) fn etcdctl(&self, member: usize, args: &[&str]) -> Result<String, String> {
        let output = Command::new("etcdctl")
            .env("ETCDCTL_API", "3")
            .arg(format!("--endpoints={}", self.endpoint(member)))
            .args(args)
            .output()
            .expect("etcdctl runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() {
            Ok(text(&output.stdout))
        } else {
            Err(text(&output.stderr))
        }
    }

    /// The member that leads.
    pub(crate) async fn leader(&self) -> usize {
        let env = Env::tokio();
        for _ in 0..100 {
            for member in 0..self.size() {
                if self.members[member].child.is_none() {
                    continue;
                }
                let Ok(status) = self.etcdctl(member, &["endpoint", "status", "-w", "fields"])
                else {
                    continue;
                };
                let field = |name: &str| {
                    status
                        .lines()
                        .find_map(|line| line.strip_prefix(&format!("\"{name}\" : ")))
                        .map(str::to_owned)
                };
                if field("MemberID").is_some() && field("MemberID") == field("Leader") {
                    return member;
                }
            }
            env.sleep(Duration::from_millis(50)).await;
        }
        panic!("no leader\n{}", self.logs());
    }
}

/// Writes a key, whatever is there.
pub(crate) async fn put(store: &dyn Store, key: &str, value: &str) -> Result<Revision, StoreError> {
    match store
        .commit(Txn::put(key.to_owned(), value.to_owned()))
        .await?
    {
        Commit::Applied { revision, .. } => Ok(revision),
        Commit::Refused { .. } => unreachable!("a write without conditions"),
    }
}

/// Writes a key; again, when it is not known what became of it.
pub(crate) async fn put_until_done(store: &dyn Store, key: &str, value: &str) -> Revision {
    let env = Env::tokio();
    for _ in 0..100 {
        match put(store, key, value).await {
            Ok(revision) => return revision,
            Err(StoreError::OutcomeUnknown(_) | StoreError::Unavailable(_)) => {
                env.sleep(Duration::from_millis(50)).await;
            }
            Err(error) => panic!("{error}"),
        }
    }
    panic!("etcd did not come back");
}

/// The value of a key.
pub(crate) async fn get(store: &dyn Store, key: &str) -> Result<Option<String>, StoreError> {
    let read = store
        .range(RangeRequest::new(KeyRange::key(key.to_owned())))
        .await?;
    Ok(read
        .items
        .first()
        .map(|kv| String::from_utf8_lossy(&kv.value).into_owned()))
}

impl Cluster {
    /// The address of a member without its scheme.
    pub(crate) fn address(&self, member: usize) -> String {
        format!("127.0.0.1:{}", self.members[member].client)
    }

    /// A relay in front of a member.
    pub(crate) async fn relay(&self, member: usize) -> Relay {
        Relay::to(self.address(member)).await
    }
}

/// A watch that is read with patience, and that must not skip or repeat anything.
pub(crate) struct Watch {
    stream: WatchStream,
    env: Env,
    /// The newest revision that was delivered.
    pub(crate) at: Revision,
}

impl Watch {
    pub(crate) async fn open(store: &dyn Store, keys: KeyRange, from: Revision) -> Self {
        let request = WatchRequest {
            keys,
            from,
            progress: true,
        };
        Self {
            stream: store.watch(request).await.expect("a watch"),
            env: Env::tokio(),
            at: Revision::ZERO,
        }
    }

    pub(crate) async fn next(&mut self) -> Result<WatchItem, StoreError> {
        let next = self
            .env
            .timeout(Duration::from_secs(15), self.stream.next());
        match next.await {
            Ok(Some(item)) => item,
            Ok(None) => panic!("the watch ended without an error"),
            Err(_) => panic!("the watch did not deliver after {}", self.at),
        }
    }

    /// What happens up to a revision: keys with their values; none for a deletion.
    pub(crate) async fn until(&mut self, revision: Revision) -> Vec<(String, Option<String>)> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let mut seen = Vec::new();
        while self.at < revision {
            match self.next().await.expect("an item") {
                WatchItem::Progress(at) => {
                    assert!(at > self.at, "progress to {at} after {}", self.at);
                    self.at = at;
                }
                WatchItem::Changes(changes) => {
                    for commit in changes.chunk_by(|a, b| a.revision() == b.revision()) {
                        let at = commit[0].revision();
                        assert!(at > self.at, "a change at {at} after {}", self.at);
                        self.at = at;
                        seen.extend(commit.iter().map(|change| match change {
                            Change::Put { kv, .. } => (text(&kv.key), Some(text(&kv.value))),
                            Change::Delete { key, .. } => (text(key), None),
                        }));
                    }
                }
            }
        }
        seen
    }
}
