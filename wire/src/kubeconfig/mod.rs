//! The file by which clients find and enter a cluster, and what a pod finds instead.
//!
//! ```
//! use orlop_wire::kubeconfig::{Credentials, Kubeconfig, Token};
//! # fn main() -> Result<(), orlop_wire::Error> {
//! let token = Credentials { token: Some(Token::Text("abc".into())), ..Credentials::default() };
//! let config = Kubeconfig::for_cluster("orlop", "https://127.0.0.1:6443", None, "admin", &token);
//! let read = Kubeconfig::parse(&config.to_yaml(), None)?;
//! assert_eq!(read.resolve(None)?.server, "https://127.0.0.1:6443");
//! # Ok(()) }
//! ```

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::files::{SECRET, write_atomically};
use crate::pki::{KeyAndCertificate, pem_blocks};
use crate::{Error, yaml};

/// Where a pod finds its service account.
pub const SERVICE_ACCOUNT_DIRECTORY: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// A kubeconfig: clusters, users, and contexts that bring them together.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Kubeconfig {
    /// The clusters by name.
    pub clusters: BTreeMap<String, Cluster>,
    /// The users by name.
    pub users: BTreeMap<String, User>,
    /// The contexts by name.
    pub contexts: BTreeMap<String, Context>,
    /// The name of the context in use; empty for none.
    pub current_context: String,
    /// Other fields, kept as they are.
    pub other: Map<String, Value>,
}

/// How a cluster is reached.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Cluster {
    /// The URL of its API server.
    pub server: String,
    /// The name by which to check its certificate, if not the one in the URL.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub tls_server_name: String,
    /// Whether to believe any certificate.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub insecure_skip_tls_verify: bool,
    /// A file with the authorities to believe (PEM).
    #[serde(skip_serializing_if = "String::is_empty")]
    pub certificate_authority: String,
    /// The authorities to believe (PEM, then base64). Comes before the file.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub certificate_authority_data: String,
    /// Other fields, kept as they are.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// How a user proves who they are.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct User {
    /// A file with the user's certificate (PEM).
    #[serde(skip_serializing_if = "String::is_empty")]
    pub client_certificate: String,
    /// The user's certificate (PEM, then base64). Comes before the file.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub client_certificate_data: String,
    /// A file with the key of the certificate (PEM).
    #[serde(skip_serializing_if = "String::is_empty")]
    pub client_key: String,
    /// The key of the certificate (PEM, then base64). Comes before the file.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub client_key_data: String,
    /// A bearer token.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub token: String,
    /// A file with a bearer token, read anew from time to time. Comes before the token.
    #[serde(rename = "tokenFile", skip_serializing_if = "String::is_empty")]
    pub token_file: String,
    /// Other fields, kept as they are.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Nothing secret.
        f.debug_struct("User")
            .field("client_certificate", &self.client_certificate)
            .field("client_key", &self.client_key)
            .field("token_file", &self.token_file)
            .finish_non_exhaustive()
    }
}

/// A user in a cluster.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Context {
    /// The cluster's name.
    pub cluster: String,
    /// The user's name.
    pub user: String,
    /// The namespace to work in; empty for `default`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Other fields, kept as they are.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// A bearer token, or where it is.
#[derive(Clone, PartialEq, Eq)]
pub enum Token {
    /// The token.
    Text(String),
    /// A file that holds it, which may change.
    File(PathBuf),
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(_) => f.write_str("Text(…)"),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
        }
    }
}

/// What proves who a client is. Nothing at all is an anonymous client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Credentials {
    /// A client certificate and its key.
    pub certificate: Option<KeyAndCertificate>,
    /// A bearer token.
    pub token: Option<Token>,
}

/// All that a client needs to know: what a kubeconfig or a pod's environment comes down to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientConfig {
    /// The URL of the API server, perhaps with a path.
    pub server: String,
    /// The authorities to believe (PEM); `None` for those of the operating system.
    pub certificate_authority: Option<String>,
    /// Whether to believe any certificate.
    pub insecure_skip_tls_verify: bool,
    /// The name by which to check the server's certificate, if not the one in the URL.
    pub tls_server_name: Option<String>,
    /// What proves who the client is.
    pub credentials: Credentials,
    /// The namespace to work in.
    pub namespace: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "kebab-case", default)]
struct File {
    clusters: Option<Vec<Named>>,
    users: Option<Vec<Named>>,
    contexts: Option<Vec<Named>>,
    current_context: Option<String>,
    #[serde(flatten)]
    other: Map<String, Value>,
}

#[derive(Deserialize)]
struct Named {
    name: String,
    #[serde(flatten)]
    content: Map<String, Value>,
}

fn invalid(error: impl fmt::Display) -> Error {
    Error::Kubeconfig(error.to_string())
}

/// Makes a map of a list of named entries, whose content stands under `field`.
fn by_name<T>(list: Option<Vec<Named>>, field: &str) -> Result<BTreeMap<String, T>, Error>
where
    T: for<'de> Deserialize<'de> + Default,
{
    let mut map = BTreeMap::new();
    for mut named in list.unwrap_or_default() {
        let content = match named.content.remove(field) {
            None | Some(Value::Null) => T::default(),
            Some(value) => serde_json::from_value(value)
                .map_err(|error| invalid(format!("{field} \"{}\": {error}", named.name)))?,
        };
        if map.contains_key(&named.name) {
            return Err(invalid(format!(
                "duplicate name \"{}\" in list of {field}s",
                named.name
            )));
        }
        map.insert(named.name, content);
    }
    Ok(map)
}

fn to_list<T: Serialize>(map: &BTreeMap<String, T>, field: &str) -> Value {
    let entry = |(name, content): (&String, &T)| {
        // Strings, booleans and maps with string keys are always JSON.
        let content = serde_json::to_value(content).unwrap_or_default();
        serde_json::json!({"name": name, field: content})
    };
    map.iter().map(entry).collect()
}

impl Kubeconfig {
    /// A kubeconfig with one cluster, one user and one context, all of the same name but for the user, ready to be written.
    #[must_use]
    pub fn for_cluster(
        name: &str,
        server: &str,
        certificate_authority: Option<&str>,
        user: &str,
        credentials: &Credentials,
    ) -> Self {
        let encode = |pem: &str| STANDARD.encode(pem);
        let cluster = Cluster {
            server: server.to_owned(),
            certificate_authority_data: certificate_authority.map(encode).unwrap_or_default(),
            ..Cluster::default()
        };
        let mut entry = User::default();
        if let Some(certificate) = &credentials.certificate {
            entry.client_certificate_data = encode(&certificate.certificate);
            entry.client_key_data = encode(&certificate.key);
        }
        match &credentials.token {
            Some(Token::Text(token)) => token.clone_into(&mut entry.token),
            Some(Token::File(path)) => entry.token_file = path.display().to_string(),
            None => {}
        }
        let context_name = format!("{user}@{name}");
        let context = Context {
            cluster: name.to_owned(),
            user: user.to_owned(),
            ..Context::default()
        };
        Self {
            clusters: BTreeMap::from([(name.to_owned(), cluster)]),
            users: BTreeMap::from([(user.to_owned(), entry)]),
            contexts: BTreeMap::from([(context_name.clone(), context)]),
            current_context: context_name,
            other: Map::new(),
        }
    }

    /// Reads a kubeconfig from text. Relative paths in it are taken from `directory`.
    ///
    /// # Errors
    /// [`Error::Yaml`] or [`Error::Kubeconfig`].
    pub fn parse(text: &str, directory: Option<&Path>) -> Result<Self, Error> {
        let value = match yaml::from_slice(text.as_bytes())? {
            Value::Null => Value::Object(Map::new()),
            value => value,
        };
        let mut file: File = serde_json::from_value(value).map_err(invalid)?;
        let kind = (file.other.remove("kind"), file.other.remove("apiVersion"));
        if kind.0.is_some_and(|kind| kind != "Config" && kind != "")
            || kind.1.is_some_and(|version| version != "v1")
        {
            return Err(invalid("not a kubeconfig: kind is not Config of v1"));
        }
        let mut config = Self {
            clusters: by_name(file.clusters, "cluster")?,
            users: by_name(file.users, "user")?,
            contexts: by_name(file.contexts, "context")?,
            current_context: file.current_context.unwrap_or_default(),
            other: file.other,
        };
        if let Some(directory) = directory {
            let resolve = |path: &mut String| {
                if !path.is_empty() && Path::new(path).is_relative() {
                    *path = directory.join(&*path).display().to_string();
                }
            };
            config
                .clusters
                .values_mut()
                .for_each(|cluster| resolve(&mut cluster.certificate_authority));
            for user in config.users.values_mut() {
                resolve(&mut user.client_certificate);
                resolve(&mut user.client_key);
                resolve(&mut user.token_file);
            }
        }
        Ok(config)
    }

    /// Reads a kubeconfig from a file.
    ///
    /// # Errors
    /// [`Error::File`], [`Error::Yaml`] or [`Error::Kubeconfig`].
    pub fn load(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path).map_err(Error::file(path))?;
        Self::parse(&text, path.parent())
    }

    /// Reads the files that `$KUBECONFIG` names (separated by colons; those that are missing are left out) as one, of which the first
    /// that says something counts; or `~/.kube/config`.
    ///
    /// # Errors
    /// [`Error::Kubeconfig`] when there is none; as [`load`](Self::load) for the others.
    pub fn load_default() -> Result<Self, Error> {
        let list = std::env::var_os("KUBECONFIG").filter(|list| !list.is_empty());
        let paths: Vec<PathBuf> = match (list, std::env::var_os("HOME")) {
            (Some(list), _) => std::env::split_paths(&list)
                .filter(|path| !path.as_os_str().is_empty())
                .collect(),
            (None, Some(home)) => vec![Path::new(&home).join(".kube/config")],
            (None, None) => Vec::new(),
        };
        Self::load_merged(&paths)
    }

    /// Reads several files as one: of what they say about the same thing, the first counts. Those that are missing are left out.
    ///
    /// # Errors
    /// [`Error::Kubeconfig`] when none is there; as [`load`](Self::load) for the others.
    pub fn load_merged(paths: &[PathBuf]) -> Result<Self, Error> {
        let mut merged: Option<Self> = None;
        for path in paths {
            let one = match Self::load(path) {
                Ok(one) => one,
                Err(Error::File { source, .. })
                    if source.kind() == std::io::ErrorKind::NotFound =>
                {
                    continue;
                }
                Err(error) => return Err(error),
            };
            match &mut merged {
                None => merged = Some(one),
                Some(merged) => merged.add(one),
            }
        }
        merged.ok_or_else(|| invalid("no configuration has been provided"))
    }

    fn add(&mut self, later: Self) {
        fn fill<T>(map: &mut BTreeMap<String, T>, more: BTreeMap<String, T>) {
            for (name, entry) in more {
                map.entry(name).or_insert(entry);
            }
        }
        fill(&mut self.clusters, later.clusters);
        fill(&mut self.users, later.users);
        fill(&mut self.contexts, later.contexts);
        if self.current_context.is_empty() {
            self.current_context = later.current_context;
        }
        for (name, value) in later.other {
            self.other.entry(name).or_insert(value);
        }
    }

    /// The text of the kubeconfig.
    #[must_use]
    pub fn to_yaml(&self) -> String {
        let mut file = self.other.clone();
        file.insert("apiVersion".to_owned(), "v1".into());
        file.insert("kind".to_owned(), "Config".into());
        file.insert("clusters".to_owned(), to_list(&self.clusters, "cluster"));
        file.insert("users".to_owned(), to_list(&self.users, "user"));
        file.insert("contexts".to_owned(), to_list(&self.contexts, "context"));
        file.insert(
            "current-context".to_owned(),
            self.current_context.clone().into(),
        );
        yaml::to_string(&Value::Object(file))
    }

    /// Writes the kubeconfig to a file, as a whole and readable by its owner only.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn store(&self, path: &Path) -> Result<(), Error> {
        write_atomically(path, self.to_yaml().as_bytes(), SECRET)
    }

    /// What a client needs for a context, or for the current one.
    ///
    /// # Errors
    /// [`Error::Kubeconfig`] for a context, cluster or user that is not there, or a way to prove who one is that is not supported;
    /// [`Error::File`] for files that cannot be read.
    pub fn resolve(&self, context: Option<&str>) -> Result<ClientConfig, Error> {
        let name = context.unwrap_or(&self.current_context);
        let context = match self.contexts.get(name) {
            Some(context) => context,
            None if name.is_empty() => {
                return Err(invalid(
                    "no configuration has been provided: no current context is set",
                ));
            }
            None => {
                return Err(invalid(format!(
                    "context was not found for specified context: {name}"
                )));
            }
        };
        let Some(cluster) = self.clusters.get(&context.cluster) else {
            return Err(invalid(format!(
                "cluster \"{}\" does not exist",
                context.cluster
            )));
        };
        if cluster.server.is_empty() {
            return Err(invalid("cluster has no server defined"));
        }
        if cluster.insecure_skip_tls_verify
            && !(cluster.certificate_authority.is_empty()
                && cluster.certificate_authority_data.is_empty())
        {
            return Err(invalid(
                "specifying a root certificates file with the insecure flag is not allowed",
            ));
        }
        if cluster.other.contains_key("proxy-url") {
            return Err(invalid(format!(
                "cluster \"{}\": proxy-url is not supported",
                context.cluster
            )));
        }
        let user = match self.users.get(&context.user) {
            Some(user) => user.clone(),
            None if context.user.is_empty() => User::default(),
            None => {
                return Err(invalid(format!(
                    "auth info \"{}\" does not exist",
                    context.user
                )));
            }
        };
        Ok(ClientConfig {
            server: cluster.server.clone(),
            certificate_authority: data_or_file(
                "certificate-authority",
                &cluster.certificate_authority_data,
                &cluster.certificate_authority,
            )?,
            insecure_skip_tls_verify: cluster.insecure_skip_tls_verify,
            tls_server_name: Some(cluster.tls_server_name.clone()).filter(|name| !name.is_empty()),
            credentials: credentials(&context.user, &user)?,
            namespace: if context.namespace.is_empty() {
                "default".to_owned()
            } else {
                context.namespace.clone()
            },
        })
    }
}

fn credentials(name: &str, user: &User) -> Result<Credentials, Error> {
    for field in [
        "exec",
        "auth-provider",
        "username",
        "password",
        "as",
        "as-uid",
        "as-groups",
        "as-user-extra",
    ] {
        if user.other.get(field).is_some_and(|value| !value.is_null()) {
            return Err(invalid(format!(
                "user \"{name}\": {field} is not supported"
            )));
        }
    }
    let certificate = data_or_file(
        "client-certificate",
        &user.client_certificate_data,
        &user.client_certificate,
    )?;
    let key = data_or_file("client-key", &user.client_key_data, &user.client_key)?;
    let certificate = match (certificate, key) {
        (Some(certificate), Some(key)) => {
            // A kubelet has both in one file: the key is not to be shown with the certificate.
            let both = certificate.contains("PRIVATE KEY-----");
            let certificate = if both {
                pem_blocks(&certificate, "CERTIFICATE")
            } else {
                certificate
            };
            let key = if both {
                pem_blocks(&key, "PRIVATE KEY")
            } else {
                key
            };
            Some(KeyAndCertificate { certificate, key })
        }
        (None, None) => None,
        (Some(_), None) => {
            return Err(invalid(format!(
                "client-key-data or client-key must be specified for {name} to use the clientCert authentication method."
            )));
        }
        (None, Some(_)) => {
            return Err(invalid(format!(
                "user \"{name}\" has a client key but no client certificate"
            )));
        }
    };
    let token = match (user.token_file.as_str(), user.token.as_str()) {
        ("", "") => None,
        ("", token) => Some(Token::Text(token.to_owned())),
        (path, _) => Some(Token::File(path.into())),
    };
    Ok(Credentials { certificate, token })
}

fn data_or_file(what: &str, data: &str, path: &str) -> Result<Option<String>, Error> {
    if !data.is_empty() {
        let compact: String = data.split_ascii_whitespace().collect();
        let bytes = STANDARD
            .decode(compact)
            .map_err(|error| invalid(format!("{what}-data: {error}")))?;
        return String::from_utf8(bytes)
            .map(Some)
            .map_err(|error| invalid(format!("{what}-data: {error}")));
    }
    if path.is_empty() {
        return Ok(None);
    }
    std::fs::read_to_string(path)
        .map(Some)
        .map_err(Error::file(Path::new(path)))
}

impl ClientConfig {
    /// A client of a server, without credentials.
    #[must_use]
    pub fn new(server: impl Into<String>) -> Self {
        Self {
            server: server.into(),
            namespace: "default".to_owned(),
            ..Self::default()
        }
    }

    /// The configuration of a pod: the address in `KUBERNETES_SERVICE_HOST` and `_PORT`, and the mounted service account.
    ///
    /// # Errors
    /// [`Error::Kubeconfig`] outside of a pod; [`Error::File`] when the service account cannot be read.
    pub fn in_cluster() -> Result<Self, Error> {
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let (Some(host), Some(port)) = (
            variable("KUBERNETES_SERVICE_HOST"),
            variable("KUBERNETES_SERVICE_PORT"),
        ) else {
            return Err(invalid(
                "unable to load in-cluster configuration, KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT must be defined",
            ));
        };
        Self::from_service_account(&host, &port, Path::new(SERVICE_ACCOUNT_DIRECTORY))
    }

    /// The configuration from a host, a port, and a directory with `token`, `ca.crt` and perhaps `namespace`.
    ///
    /// # Errors
    /// [`Error::File`] when the token or the authorities cannot be read.
    pub fn from_service_account(host: &str, port: &str, directory: &Path) -> Result<Self, Error> {
        let read = |path: &Path| std::fs::read_to_string(path).map_err(Error::file(path));
        let token = directory.join("token");
        // The token's file is read anew from time to time; that it can be read is found out now.
        read(&token)?;
        let host = if host.contains(':') {
            format!("[{host}]")
        } else {
            host.to_owned()
        };
        let namespace = read(&directory.join("namespace")).map(|text| text.trim().to_owned());
        Ok(Self {
            server: format!("https://{host}:{port}"),
            certificate_authority: Some(read(&directory.join("ca.crt"))?),
            credentials: Credentials {
                certificate: None,
                token: Some(Token::File(token)),
            },
            namespace: namespace
                .ok()
                .filter(|name| !name.is_empty())
                .unwrap_or_else(|| "default".to_owned()),
            ..Self::default()
        })
    }
}
