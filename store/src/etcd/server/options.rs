//! How an etcd server is set up.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::Upkeep;

/// How an [`EtcdServer`](super::EtcdServer) serves. Begin with [`new`](Self::new).
#[derive(Clone)]
#[non_exhaustive]
pub struct EtcdServerOptions {
    /// The name of the one member.
    pub name: String,
    /// The cluster's number, which clients may remember. By default it comes from the name.
    pub cluster_id: u64,
    /// The member's number. By default it comes from the name.
    pub member_id: u64,
    /// Where clients are told that the member can be reached.
    pub client_urls: Vec<String>,
    /// Where peers would reach it, if it had any.
    pub peer_urls: Vec<String>,
    /// What an operator asks of the store; without it, its size is told as zero and it cannot be defragmented.
    pub upkeep: Option<Arc<dyn Upkeep>>,
    /// How many bytes the state may take before writes are refused and the alarm NOSPACE is raised. It needs [`upkeep`](Self::upkeep) to know. `None`
    /// for as many as there are.
    pub quota_bytes: Option<u64>,
    /// What history is given up by itself; `None` for none, beyond what the store gives up.
    pub auto_compaction: Option<AutoCompaction>,
    /// Where a snapshot lies while it is sent. The file has no name there.
    pub scratch_dir: PathBuf,
    /// How many operations a transaction may have: 128.
    pub max_txn_ops: usize,
    /// How many bytes a request that writes may have: 1.5 MiB.
    pub max_request_bytes: usize,
    /// How often a watch of which nothing is heard, and which asked for it, is told how far it is: every ten minutes.
    pub progress_interval: Duration,
}

/// What history is given up by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AutoCompaction {
    /// What is older than this.
    Periodic(Duration),
    /// All but so many revisions, looked at every five minutes.
    Revision(u64),
}

impl EtcdServerOptions {
    /// etcd's defaults for a member with a name.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        let name = name.into();
        Self {
            cluster_id: number("cluster", &name),
            member_id: number("member", &name),
            name,
            client_urls: Vec::new(),
            peer_urls: Vec::new(),
            upkeep: None,
            quota_bytes: None,
            auto_compaction: None,
            scratch_dir: std::env::temp_dir(),
            max_txn_ops: 128,
            max_request_bytes: 3 << 19,
            progress_interval: Duration::from_secs(600),
        }
    }
}

/// A number that is the same for the same name, and never zero, which means none.
fn number(of: &str, name: &str) -> u64 {
    let digest = ring::digest::digest(
        &ring::digest::SHA256,
        format!("orlop etcd {of} {name}").as_bytes(),
    );
    let first = digest.as_ref().first_chunk().copied().unwrap_or_default();
    u64::from_be_bytes(first).max(1)
}

impl fmt::Debug for EtcdServerOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdServerOptions")
            .field("name", &self.name)
            .field("cluster_id", &self.cluster_id)
            .field("member_id", &self.member_id)
            .field("client_urls", &self.client_urls)
            .field("quota_bytes", &self.quota_bytes)
            .field("auto_compaction", &self.auto_compaction)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_from_the_name() {
        let (a, b) = (EtcdServerOptions::new("a"), EtcdServerOptions::new("b"));
        assert_ne!(a.member_id, b.member_id);
        assert_ne!(a.member_id, a.cluster_id);
        assert_eq!(a.member_id, EtcdServerOptions::new("a").member_id);
    }
}
