//! The certificates of a node agent: the one by which it is a client of the API server, and the one by which it serves its own API.
//!
//! [`bootstrap`] turns what only lets a machine ask (a bootstrap token) into an identity of its own, by a CertificateSigningRequest, and
//! writes the kubeconfig for it. A [`CertificateManager`] asks for a new certificate when 70 to 90 percent of the old one's time are over.
//! What is served without asking anybody is [`self_signed`].

mod request;
mod store;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use orlop_core::client::Client;
use orlop_core::env::{CancelToken, Env};
use orlop_core::status::Status;
use orlop_wire::kubeconfig::{ClientConfig, Credentials, Kubeconfig};
use orlop_wire::pki::{CertificateAuthority, CertificateIdentity, KeyAndCertificate, SubjectName};
use parking_lot::Mutex;

pub use self::request::{Purpose, request};
pub use self::store::CertificateStore;
use crate::blocking::blocking;

/// How long to wait after a request that failed: doubled each time, up to the second.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(300));
/// How long a certificate that nobody but its holder signed is valid.
const SELF_SIGNED_FOR: Duration = Duration::from_secs(365 * 86_400);

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// The request was denied, failed or was deleted.
    #[error("{0}")]
    Refused(String),
    /// Nobody decided in time.
    #[error("timed out waiting for certificate signing request {0}")]
    Late(String),
    /// The API server refused.
    #[error("cannot create certificate signing request: {0}")]
    Api(Box<Status>),
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A key, a certificate or a kubeconfig cannot be used.
    #[error(transparent)]
    Wire(#[from] orlop_wire::Error),
}

impl CertificateError {
    fn api(status: Status) -> Self {
        Self::Api(Box::new(status))
    }
}

/// Gives this machine an identity of its own. If the kubeconfig is there and its certificate is valid, that is all; else a certificate
/// is asked for through `client`, which is allowed to ask (by a bootstrap token), and the kubeconfig is written, for the server of
/// `server` and the certificate that `store` keeps. Returns what that kubeconfig says.
///
/// # Errors
/// [`CertificateError`].
pub async fn bootstrap(
    env: &Env,
    client: &Arc<dyn Client>,
    server: &ClientConfig,
    node_name: &str,
    store: &CertificateStore,
    kubeconfig: &Path,
) -> Result<ClientConfig, CertificateError> {
    let now = env.wall();
    let path = kubeconfig.to_owned();
    if let Some(known) = blocking(move || self::known(&path, now)).await {
        return Ok(known);
    }
    let pair = request(env, client, node_name, &Purpose::Client).await?;
    let (store, path, server) = (store.clone(), kubeconfig.to_owned(), server.clone());
    let now = env.wall();
    blocking(move || {
        store.keep(&pair, now)?;
        let config = node_kubeconfig(&server, &store.current_path());
        config.store(&path)?;
        Ok(config.resolve(None)?)
    })
    .await
}

/// What a kubeconfig says, if it is there and its certificate is valid: then nothing has to be asked for, and what lets a machine ask
/// may be gone. Reads files, so call it where that may wait.
#[must_use]
pub fn known(path: &Path, now: Timestamp) -> Option<ClientConfig> {
    let config = Kubeconfig::load(path).ok()?.resolve(None).ok()?;
    let pair = config.credentials.certificate.as_ref()?;
    let identity = CertificateIdentity::from_pem(&pair.certificate).ok()?;
    identity.is_valid_at(now).then_some(config)
}

/// A kubeconfig whose user has certificate and key in one file.
fn node_kubeconfig(server: &ClientConfig, pair: &Path) -> Kubeconfig {
    let authority = server.certificate_authority.as_deref();
    let nobody = Credentials::default();
    let mut config = Kubeconfig::for_cluster(
        "default",
        &server.server,
        authority,
        "default-auth",
        &nobody,
    );
    for cluster in config.clusters.values_mut() {
        cluster.insecure_skip_tls_verify = server.insecure_skip_tls_verify;
        cluster.tls_server_name = server.tls_server_name.clone().unwrap_or_default();
    }
    for user in config.users.values_mut() {
        user.client_certificate = pair.display().to_string();
        user.client_key = pair.display().to_string();
    }
    config
}

/// Makes a certificate for serving that nobody else vouches for, as a node agent does that was told of none: kept as `kubelet.crt` and
/// `kubelet.key` in `directory`, and taken from there if it is still valid and good for these names. Reads and writes files, so call it
/// where that may wait.
///
/// # Errors
/// [`CertificateError::Wire`].
pub fn self_signed(
    directory: &Path,
    node_name: &str,
    names: &[SubjectName],
    now: Timestamp,
) -> Result<KeyAndCertificate, CertificateError> {
    let (certificate, key) = (directory.join("kubelet.crt"), directory.join("kubelet.key"));
    let wanted: Vec<String> = names.iter().map(ToString::to_string).collect();
    if let Ok(known) = KeyAndCertificate::load(&certificate, &key)
        && let Ok(identity) = CertificateIdentity::from_pem(&known.certificate)
        && identity.is_valid_at(now)
        && identity.covers(wanted.iter().map(String::as_str))
        && known.private_key().is_ok()
    {
        return Ok(known);
    }
    let stamp = now.as_second();
    let authority =
        CertificateAuthority::create(&format!("{node_name}-ca@{stamp}"), now, SELF_SIGNED_FOR)?;
    let common_name = format!("{node_name}@{stamp}");
    let mut pair =
        authority.issue_server(&common_name, names.iter().cloned(), now, SELF_SIGNED_FOR)?;
    pair.certificate.push_str(authority.certificate_pem());
    pair.store(&certificate, &key)?;
    Ok(pair)
}

/// Where a [`CertificateManager`] finds a client to ask with: the one of now, which may be another after a renewal.
pub type ClientSource = Arc<dyn Fn() -> Arc<dyn Client> + Send + Sync>;
/// Is called with every new certificate.
pub type CertificateChanged = Arc<dyn Fn(&KeyAndCertificate) + Send + Sync>;

/// Keeps a certificate that is always valid.
pub struct CertificateManager {
    env: Env,
    node_name: String,
    purpose: Purpose,
    store: CertificateStore,
    client: ClientSource,
    changed: CertificateChanged,
    current: Mutex<Option<KeyAndCertificate>>,
}

impl std::fmt::Debug for CertificateManager {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CertificateManager")
            .field("node", &self.node_name)
            .field("purpose", &self.purpose)
            .finish_non_exhaustive()
    }
}

impl CertificateManager {
    /// A manager of a certificate. [`run`](Self::run) does all the work.
    pub fn new(
        env: Env,
        node_name: impl Into<String>,
        purpose: Purpose,
        store: CertificateStore,
        client: ClientSource,
        changed: CertificateChanged,
    ) -> Self {
        Self {
            env,
            node_name: node_name.into(),
            purpose,
            store,
            client,
            changed,
            current: Mutex::new(None),
        }
    }

    /// The certificate of now; `None` before the first.
    #[must_use]
    pub fn current(&self) -> Option<KeyAndCertificate> {
        self.current.lock().clone()
    }

    /// Takes what is in the store, asks for a certificate if there is none that is valid, and renews it in time, until `token` is
    /// cancelled.
    pub async fn run(&self, token: CancelToken) {
        token.run(self.keep()).await;
    }

    async fn keep(&self) {
        let store = self.store.clone();
        match blocking(move || store.current()).await {
            Ok(Some(pair)) if self.fits(&pair) => self.take(pair),
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "the certificate that is there cannot be used"),
        }
        let mut pause = BACKOFF.0;
        loop {
            if let Some(due) = self.due() {
                let left = due.duration_since(self.env.wall());
                // A due time that has passed is now.
                self.env
                    .sleep(Duration::try_from(left).unwrap_or_default())
                    .await;
            }
            match self.renew().await {
                Ok(()) => {
                    pause = BACKOFF.0;
                    continue;
                }
                Err(error) => tracing::error!(%error, "certificate rotation failed"),
            }
            self.env.sleep(self.env.jitter(pause, 0.1)).await;
            pause = (pause * 2).min(BACKOFF.1);
        }
    }

    /// Whether a certificate is valid now, and good for the names that it is to serve under.
    fn fits(&self, pair: &KeyAndCertificate) -> bool {
        let Ok(identity) = CertificateIdentity::from_pem(&pair.certificate) else {
            return false;
        };
        let names: Vec<String> = match &self.purpose {
            Purpose::Client => Vec::new(),
            Purpose::Serving(names) => names.iter().map(ToString::to_string).collect(),
        };
        identity.is_valid_at(self.env.wall()) && identity.covers(names.iter().map(String::as_str))
    }

    /// When the certificate is to be renewed: when 70 to 90 percent of its time are over. `None` for at once.
    fn due(&self) -> Option<Timestamp> {
        let pair = self.current()?;
        let identity = CertificateIdentity::from_pem(&pair.certificate).ok()?;
        let lifetime = identity.not_after.duration_since(identity.not_before);
        let lifetime = Duration::try_from(lifetime).ok()?;
        let part = 0.7 + 0.2 * self.env.random_unit();
        identity.not_before.checked_add(lifetime.mul_f64(part)).ok()
    }

    async fn renew(&self) -> Result<(), CertificateError> {
        let client = (self.client)();
        let pair = request(&self.env, &client, &self.node_name, &self.purpose).await?;
        let (store, kept, now) = (self.store.clone(), pair.clone(), self.env.wall());
        blocking(move || store.keep(&kept, now)).await?;
        self.take(pair);
        Ok(())
    }

    fn take(&self, pair: KeyAndCertificate) {
        *self.current.lock() = Some(pair.clone());
        (self.changed)(&pair);
    }
}
