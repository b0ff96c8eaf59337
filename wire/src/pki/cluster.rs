//! A cluster's PKI in one directory.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::authority::{CertificateAuthority, SubjectName};
use super::identity::CertificateIdentity;
use super::keys::{
    KeyAndCertificate, SigningKeyPair, belongs, certificates_from_pem, key_pair_from_pem,
};
use crate::Error;
use crate::files::{PUBLIC, SECRET, read_if_there, write_atomically};

/// The names of the files, as kubeadm has them.
pub mod files {
    #![allow(missing_docs)] // the names say it
    pub const CA_CERTIFICATE: &str = "ca.crt";
    pub const CA_KEY: &str = "ca.key";
    pub const SERVER_CERTIFICATE: &str = "apiserver.crt";
    pub const SERVER_KEY: &str = "apiserver.key";
    pub const SERVICE_ACCOUNT_KEY: &str = "sa.key";
    pub const SERVICE_ACCOUNT_PUBLIC: &str = "sa.pub";
    pub const ADMIN_CERTIFICATE: &str = "admin.crt";
    pub const ADMIN_KEY: &str = "admin.key";
}

/// What a cluster's PKI should be like.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClusterPkiOptions {
    /// The authority's common name.
    pub common_name: String,
    /// How long a new authority is valid.
    pub authority_validity: Duration,
    /// How long what it issues is valid.
    pub validity: Duration,
    /// What ends sooner than this is issued anew.
    pub renew_before: Duration,
    /// The names under which the API server is reached.
    pub server_names: BTreeSet<SubjectName>,
    /// The administrator's user name.
    pub admin_user: String,
    /// The administrator's groups.
    pub admin_groups: Vec<String>,
}

impl ClusterPkiOptions {
    /// What a cluster usually has: ten years for the authority and one for the rest, renewed in the last ninety days (as rarely as the
    /// server is restarted, it should last until the next time); the names by which pods reach the API server, with the first address of
    /// the default service range; an administrator in `system:masters`.
    #[must_use]
    pub fn new() -> Self {
        const DAY: Duration = Duration::from_secs(86_400);
        let names = [
            "localhost",
            "127.0.0.1",
            "::1",
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            "kubernetes.default.svc.cluster.local",
            "10.96.0.1",
        ];
        Self {
            common_name: "kubernetes".to_owned(),
            authority_validity: DAY * 3650,
            validity: DAY * 365,
            renew_before: DAY * 90,
            server_names: names.into_iter().map(SubjectName::from).collect(),
            admin_user: "kubernetes-admin".to_owned(),
            admin_groups: vec!["system:masters".to_owned()],
        }
    }

    /// A further name (DNS or IP address) under which the API server is reached.
    #[must_use]
    pub fn server_name(mut self, name: impl Into<SubjectName>) -> Self {
        self.server_names.insert(name.into());
        self
    }

    /// Who the administrator is.
    #[must_use]
    pub fn admin<G: Into<String>>(
        mut self,
        user: &str,
        groups: impl IntoIterator<Item = G>,
    ) -> Self {
        user.clone_into(&mut self.admin_user);
        self.admin_groups = groups.into_iter().map(Into::into).collect();
        self
    }
}

impl Default for ClusterPkiOptions {
    fn default() -> Self {
        Self::new()
    }
}

/// A cluster's authority and the keys that its API server and administrator need.
#[derive(Debug)]
#[non_exhaustive]
pub struct ClusterPki {
    /// The authority.
    pub authority: Arc<CertificateAuthority>,
    /// The API server's certificate and key.
    pub server: KeyAndCertificate,
    /// What signs service account tokens.
    pub service_account: SigningKeyPair,
    /// The administrator's certificate and key.
    pub admin: KeyAndCertificate,
}

impl ClusterPki {
    /// A PKI in memory only.
    ///
    /// # Errors
    /// [`Error::Issue`].
    pub fn create(options: &ClusterPkiOptions, now: Timestamp) -> Result<Self, Error> {
        let authority =
            CertificateAuthority::create(&options.common_name, now, options.authority_validity)?;
        Ok(Self {
            server: issue_server(&authority, options, now)?,
            admin: issue_admin(&authority, options, now)?,
            service_account: SigningKeyPair::create()?,
            authority: Arc::new(authority),
        })
    }

    /// The PKI in a directory; what is missing is made and written.
    ///
    /// The authority and the service account key are kept as they are: clients have come to believe them. The certificates that the
    /// authority issued are kept as long as they are as asked for, and issued anew when they end soon, do not cover a name, belong to
    /// another user or authority, or cannot be read.
    ///
    /// # Errors
    /// [`Error::AuthorityNotValid`] for an authority that has expired; [`Error::Mismatch`], [`Error::Pem`], [`Error::Certificate`] for
    /// one that cannot be used; [`Error::File`].
    pub fn load_or_create(
        directory: &Path,
        options: &ClusterPkiOptions,
        now: Timestamp,
    ) -> Result<Self, Error> {
        let authority = authority(directory, options, now)?;
        let service_account = service_account(directory)?;
        let server = kept(
            &authority,
            (
                &directory.join(files::SERVER_CERTIFICATE),
                &directory.join(files::SERVER_KEY),
            ),
            (options.renew_before, now),
            |identity| {
                let names: Vec<String> = options
                    .server_names
                    .iter()
                    .map(ToString::to_string)
                    .collect();
                identity.covers(names.iter().map(String::as_str))
            },
            || issue_server(&authority, options, now),
        )?;
        let admin = kept(
            &authority,
            (
                &directory.join(files::ADMIN_CERTIFICATE),
                &directory.join(files::ADMIN_KEY),
            ),
            (options.renew_before, now),
            |identity| {
                identity.common_name == options.admin_user
                    && identity.organizations == options.admin_groups
            },
            || issue_admin(&authority, options, now),
        )?;
        Ok(Self {
            authority: Arc::new(authority),
            server,
            service_account,
            admin,
        })
    }
}

fn issue_server(
    authority: &CertificateAuthority,
    options: &ClusterPkiOptions,
    now: Timestamp,
) -> Result<KeyAndCertificate, Error> {
    authority.issue_server(
        "kube-apiserver",
        options.server_names.iter().cloned(),
        now,
        options.validity,
    )
}

fn issue_admin(
    authority: &CertificateAuthority,
    options: &ClusterPkiOptions,
    now: Timestamp,
) -> Result<KeyAndCertificate, Error> {
    authority.issue_client(
        &options.admin_user,
        options.admin_groups.iter().cloned(),
        now,
        options.validity,
    )
}

fn authority(
    directory: &Path,
    options: &ClusterPkiOptions,
    now: Timestamp,
) -> Result<CertificateAuthority, Error> {
    let (certificate, key) = (
        directory.join(files::CA_CERTIFICATE),
        directory.join(files::CA_KEY),
    );
    let authority = match (read_if_there(&certificate)?, read_if_there(&key)?) {
        (Some(certificate), Some(key)) => CertificateAuthority::from_pem(&certificate, &key)?,
        (Some(_), None) => {
            return Err(Error::pem(
                key.display().to_string(),
                "the key of the certificate authority is missing",
            ));
        }
        (None, old_key) => {
            // The key is written first: one without a certificate is left by a first start that was cut short.
            let validity = options.authority_validity;
            let new = match old_key {
                Some(old) => {
                    CertificateAuthority::create_for_key(&old, &options.common_name, now, validity)?
                }
                None => CertificateAuthority::create(&options.common_name, now, validity)?,
            };
            new.store(&certificate, &key)?;
            new
        }
    };
    if !authority.identity().is_valid_at(now) {
        return Err(Error::AuthorityNotValid(certificate.display().to_string()));
    }
    Ok(authority)
}

fn service_account(directory: &Path) -> Result<SigningKeyPair, Error> {
    let (key, public) = (
        directory.join(files::SERVICE_ACCOUNT_KEY),
        directory.join(files::SERVICE_ACCOUNT_PUBLIC),
    );
    let pair = match read_if_there(&key)? {
        Some(text) => {
            let pair = SigningKeyPair::from_pem(&key.display().to_string(), &text)?;
            if read_if_there(&public)?.is_some() {
                return Ok(pair);
            }
            pair
        }
        None => {
            let pair = SigningKeyPair::create()?;
            write_atomically(&key, pair.key.as_bytes(), SECRET)?;
            pair
        }
    };
    write_atomically(&public, pair.public.as_bytes(), PUBLIC)?;
    Ok(pair)
}

/// What is in two files, if it is still good; otherwise what `issue` gives, after it was written.
fn kept(
    authority: &CertificateAuthority,
    (certificate, key): (&Path, &Path),
    (renew_before, now): (Duration, Timestamp),
    as_asked: impl FnOnce(&CertificateIdentity) -> bool,
    issue: impl FnOnce() -> Result<KeyAndCertificate, Error>,
) -> Result<KeyAndCertificate, Error> {
    let (old_certificate, old_key) = (read_if_there(certificate)?, read_if_there(key)?);
    if let (Some(old_certificate), Some(old_key)) = (old_certificate, old_key) {
        let old = KeyAndCertificate {
            certificate: old_certificate,
            key: old_key,
        };
        let good = examine(authority, &old).is_some_and(|identity| {
            let end = now.checked_add(renew_before).unwrap_or(Timestamp::MAX);
            // Nothing lasts longer than the authority: what ends with it gains nothing by being issued anew.
            let lasts =
                identity.not_after > end || identity.not_after >= authority.identity().not_after;
            lasts && identity.is_valid_at(now) && as_asked(&identity)
        });
        if good {
            return Ok(old);
        }
        tracing::info!(certificate = %certificate.display(), "issuing anew");
    }
    let new = issue()?;
    new.store(certificate, key)?;
    Ok(new)
}

/// What a certificate says, if it fits its key and the authority signed it.
fn examine(
    authority: &CertificateAuthority,
    pair: &KeyAndCertificate,
) -> Option<CertificateIdentity> {
    let chain = certificates_from_pem("certificate", pair.certificate.as_bytes()).ok()?;
    let own = chain.first()?;
    let key = key_pair_from_pem("key", &pair.key).ok()?;
    if !belongs(&key, own) || !authority.signed(own) {
        return None;
    }
    CertificateIdentity::from_der(own).ok()
}
