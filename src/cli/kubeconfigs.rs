//! The kubeconfigs in the directory of a cluster: the administrator's, and one for each component that may run as a process of its own.

use std::path::Path;
use std::time::Duration;

use orlop::core::env::Env;
use orlop::wire::kubeconfig::{ClientConfig, Credentials, Kubeconfig};
use orlop::wire::pki::{ClusterPki, KeyAndCertificate};

use super::Failure;

/// How long the certificates are good for: they are made anew at every start.
const VALIDITY: Duration = Duration::from_secs(365 * 86_400);

/// The files of the components, by kubeadm's names, each with its user.
const COMPONENTS: [(&str, &str); 2] = [
    ("scheduler.conf", "system:kube-scheduler"),
    ("controller-manager.conf", "system:kube-controller-manager"),
];

/// Who has a kubeconfig, and how each proves it.
pub(super) struct Kubeconfigs {
    authority: String,
    users: Vec<(&'static str, String, KeyAndCertificate)>,
}

impl Kubeconfigs {
    /// Issues the certificates.
    pub(super) fn new(pki: &ClusterPki, env: &Env) -> Result<Self, Failure> {
        let admin = "kubernetes-admin".to_owned();
        let mut users = vec![("kubeconfig", admin, pki.admin.clone())];
        for (file, user) in COMPONENTS {
            let nobody = std::iter::empty::<String>();
            let pair = pki
                .authority
                .issue_client(user, nobody, env.wall(), VALIDITY)?;
            users.push((file, user.to_owned(), pair));
        }
        Ok(Self {
            authority: pki.authority.certificate_pem().to_owned(),
            users,
        })
    }

    /// Writes them for a server, readable by the owner alone.
    pub(super) fn write(&self, url: &str, directory: &Path) -> Result<(), Failure> {
        for (file, user, pair) in &self.users {
            let credentials = Credentials {
                certificate: Some(pair.clone()),
                ..Credentials::default()
            };
            let authority = Some(self.authority.as_str());
            let config = Kubeconfig::for_cluster("orlop", url, authority, user, &credentials);
            let path = directory.join(file);
            config.store(&path)?;
            // What was written must be what a client reads.
            let _: ClientConfig = Kubeconfig::load(&path)?.resolve(None)?;
        }
        Ok(())
    }
}
