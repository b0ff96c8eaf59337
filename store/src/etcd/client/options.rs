//! How to reach an etcd, and how to work with it.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;

/// How many bytes of changes are kept for watchers unless told otherwise.
const HISTORY_BYTES: usize = 64 << 20;

/// Where an etcd is and how to talk to it.
///
/// ```
/// use orlop_store::{EtcdOptions, EtcdTls};
///
/// let options = EtcdOptions::new(["https://10.0.0.1:2379", "https://10.0.0.2:2379"])
///     .tls(EtcdTls { ca_pem: "…".to_owned(), ..EtcdTls::default() })
///     .user("orlop", "not for logs");
/// assert!(!format!("{options:?}").contains("not for logs"));
/// ```
#[derive(Clone)]
pub struct EtcdOptions {
    pub(super) endpoints: Vec<String>,
    pub(super) tls: Option<EtcdTls>,
    pub(super) user: Option<(String, String)>,
    pub(super) prefix: Bytes,
    pub(super) history_bytes: usize,
    pub(super) request_timeout: Duration,
    pub(super) dial_timeout: Duration,
    pub(super) keep_alive: Option<(Duration, Duration)>,
    pub(super) compaction_interval: Option<Duration>,
}

impl EtcdOptions {
    /// The members of a cluster by their client URLs: `http://host:port`, `https://host:port` or `unix:///path`. A host may be a name, an IPv4
    /// address or an IPv6 address in brackets; without a scheme it is `http`. Requests go to one of them at a time, and to the next
    /// when that one fails.
    #[must_use]
    pub fn new<S: Into<String>>(endpoints: impl IntoIterator<Item = S>) -> Self {
        Self {
            endpoints: endpoints.into_iter().map(Into::into).collect(),
            tls: None,
            user: None,
            prefix: Bytes::new(),
            history_bytes: HISTORY_BYTES,
            request_timeout: Duration::from_secs(10),
            dial_timeout: Duration::from_secs(3),
            keep_alive: Some((Duration::from_secs(10), Duration::from_secs(5))),
            compaction_interval: Some(Duration::from_secs(300)),
        }
    }

    /// What to trust, and who to be, on `https` endpoints. They need it: no authority is trusted by default.
    #[must_use]
    pub fn tls(mut self, tls: EtcdTls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// The user to log in as where etcd asks for a user and a password. An etcd that has authentication off takes no offence.
    #[must_use]
    pub fn user(mut self, name: impl Into<String>, password: impl Into<String>) -> Self {
        self.user = Some((name.into(), password.into()));
        self
    }

    /// Restricts the store to the keys that start with a prefix, for a user whose role may see no others. Keys are passed on as they are, in
    /// full: it is for the caller to ask for keys below the prefix only.
    ///
    /// Without it (the default) the store watches the whole key space, of which every revision changes something. So it always knows that it
    /// was told everything. With it etcd must be asked how far the watch has come, which etcd answers correctly from 3.4.25 and 3.5.8 on; an older one is refused.
    /// Progress is then told within a quarter of a second, and nothing is compacted.
    #[must_use]
    pub fn prefix(mut self, prefix: impl Into<Bytes>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// About how many bytes of changes are kept in memory for watchers (64 MiB by default). A watch from before them is served by etcd itself
    /// until it has caught up; a watcher that has fallen behind them is dropped.
    #[must_use]
    pub fn history_bytes(mut self, bytes: usize) -> Self {
        self.history_bytes = bytes;
        self
    }

    /// How long a request may take, with all attempts (10 seconds by default). Keep it above etcd's own limit, which is 5 seconds and two election
    /// timeouts, so that etcd has the chance to say what became of a write.
    #[must_use]
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = timeout;
        self
    }

    /// How long a connection may take to come about (3 seconds by default).
    #[must_use]
    pub fn dial_timeout(mut self, timeout: Duration) -> Self {
        self.dial_timeout = timeout;
        self
    }

    /// How often a connection with requests on it is probed, and how long the answer to a probe may take before the connection is given up (10 and 5 seconds by default);
    /// `None` for never. etcd disconnects a client that probes more often than its `--grpc-keepalive-min-time`, which is 5 seconds.
    #[must_use]
    pub fn keep_alive(mut self, interval_and_timeout: Option<(Duration, Duration)>) -> Self {
        self.keep_alive = interval_and_timeout;
        self
    }

    /// How often etcd is told to forget what is older than this interval (5 minutes by default); `None` to leave that to others. All
    /// clients of a cluster that do so, kube-apiservers among them, take turns by the key `compact_rev_key`.
    #[must_use]
    pub fn compaction_interval(mut self, interval: Option<Duration>) -> Self {
        self.compaction_interval = interval;
        self
    }
}

impl fmt::Debug for EtcdOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdOptions")
            .field("endpoints", &self.endpoints)
            .field("tls", &self.tls)
            .field("user", &self.user.as_ref().map(|(name, _)| name))
            .field("prefix", &self.prefix)
            .field("history_bytes", &self.history_bytes)
            .field("request_timeout", &self.request_timeout)
            .field("dial_timeout", &self.dial_timeout)
            .field("keep_alive", &self.keep_alive)
            .field("compaction_interval", &self.compaction_interval)
            .finish()
    }
}

/// Certificates for `https` endpoints, as PEM.
#[derive(Clone, Default)]
pub struct EtcdTls {
    /// The authorities, one or more, of which one must have signed the certificate of the server.
    pub ca_pem: String,
    /// The certificate to show to the server, with its chain; empty for none.
    pub certificate_pem: String,
    /// The private key of that certificate; empty for none.
    pub key_pem: String,
}

impl fmt::Debug for EtcdTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdTls")
            .field("certificate", &!self.certificate_pem.is_empty())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        let options = EtcdOptions::new(["https://a:2379"])
            .user("root", "pass-word")
            .tls(EtcdTls {
                ca_pem: "authority".to_owned(),
                certificate_pem: "leaf".to_owned(),
                key_pem: "private".to_owned(),
            });
        let shown = format!("{options:?}");
        assert!(shown.contains("root") && shown.contains("https://a:2379"));
        assert!(!shown.contains("pass-word") && !shown.contains("private"));
    }
}
