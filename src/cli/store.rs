//! What keeps the objects: `--store`, and the flags of etcd.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use clap::Args;
use orlop::core::env::Env;
use orlop::core::store::Store;
use orlop::store::{DurableOptions, DurableStore, MemoryStore};

use super::Failure;

/// What keeps the objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum StoreKind {
    /// On disk: acknowledged means written.
    Durable,
    /// In memory: gone with the process.
    Memory,
    /// A cluster of etcd, by the client URLs of its members.
    Etcd(Vec<String>),
}

impl FromStr for StoreKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "durable" => Ok(Self::Durable),
            "memory" => Ok(Self::Memory),
            other => match other.strip_prefix("etcd=").map(urls) {
                Some(urls) if !urls.is_empty() => Ok(Self::Etcd(urls)),
                _ => Err("one of durable, memory or etcd=URL[,URL…] is wanted".to_owned()),
            },
        }
    }
}

impl fmt::Display for StoreKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Durable => f.write_str("durable"),
            Self::Memory => f.write_str("memory"),
            Self::Etcd(urls) => write!(f, "etcd={}", urls.join(",")),
        }
    }
}

fn urls(text: &str) -> Vec<String> {
    let parts = text.split(',').map(str::trim);
    parts
        .filter(|part| !part.is_empty())
        .map(str::to_owned)
        .collect()
}

/// How to be believed by etcd, and whom to believe. The names of the files are kube-apiserver's.
#[derive(Debug, Default, Args)]
pub(super) struct EtcdFlags {
    /// The authorities that sign etcd's certificates
    #[arg(long, value_name = "FILE")]
    etcd_cafile: Option<PathBuf>,

    /// The certificate to show to etcd
    #[arg(long, value_name = "FILE", requires = "etcd_keyfile")]
    etcd_certfile: Option<PathBuf>,

    /// Its key
    #[arg(long, value_name = "FILE", requires = "etcd_certfile")]
    etcd_keyfile: Option<PathBuf>,

    /// A file with the line user:password, where etcd asks for it; the environment variable ORLOP_ETCD_USER without
    #[arg(long, value_name = "FILE")]
    etcd_user_file: Option<PathBuf>,
}

impl EtcdFlags {
    /// The first of them that was given.
    fn given(&self) -> Option<&'static str> {
        let all = [
            ("--etcd-cafile", &self.etcd_cafile),
            ("--etcd-certfile", &self.etcd_certfile),
            ("--etcd-keyfile", &self.etcd_keyfile),
            ("--etcd-user-file", &self.etcd_user_file),
        ];
        all.iter()
            .find_map(|(flag, path)| path.is_some().then_some(*flag))
    }
}

/// Opens the store of a cluster whose directory is given, if it has one.
pub(super) async fn open(
    kind: &StoreKind,
    etcd: &EtcdFlags,
    directory: Option<&Path>,
    env: &Env,
) -> Result<Arc<dyn Store>, Failure> {
    if !matches!(kind, StoreKind::Etcd(_))
        && let Some(flag) = etcd.given()
    {
        return Err(Failure::new(format!(
            "{flag} is about an etcd, but the store is {kind}"
        )));
    }
    match (kind, directory) {
        (StoreKind::Durable, Some(directory)) => Ok(Arc::new(DurableStore::open(
            directory.join("store"),
            DurableOptions::default(),
            env.clone(),
        )?)),
        (StoreKind::Durable, None) => Err(Failure::new(
            "the durable store needs a --data-dir to be in",
        )),
        (StoreKind::Memory, _) => Ok(Arc::new(MemoryStore::new(env.clone()))),
        (StoreKind::Etcd(urls), _) => etcd::open(urls, etcd, env).await,
    }
}

/// A line about the store, for a person.
pub(super) fn describe(kind: &StoreKind, directory: Option<&Path>) -> String {
    match kind {
        StoreKind::Durable => format!(
            "durable, in {}: what is acknowledged is on disk",
            directory.unwrap_or(Path::new("")).join("store").display()
        ),
        StoreKind::Memory => "in memory: everything is gone with this process".to_owned(),
        StoreKind::Etcd(urls) => format!("etcd, at {}", urls.join(", ")),
    }
}

#[cfg(not(feature = "etcd"))]
mod etcd {
    use super::*;

    pub(super) async fn open(
        _: &[String],
        _: &EtcdFlags,
        _: &Env,
    ) -> Result<Arc<dyn Store>, Failure> {
        Err(Failure::new("this orlop was built without etcd"))
    }
}

#[cfg(feature = "etcd")]
mod etcd {
    use std::time::Duration;

    use orlop::core::store::StoreError;
    use orlop::store::{EtcdOptions, EtcdStore, EtcdTls};

    use super::*;
    use crate::cli::values;

    /// How long etcd may take to be there: it may be starting, too.
    const PATIENCE: Duration = Duration::from_secs(20);
    /// How long until it is tried again.
    const AGAIN: Duration = Duration::from_millis(500);

    /// Who to be: the text `user:password`, from the file or the environment.
    fn user(flags: &EtcdFlags) -> Result<Option<(String, String)>, Failure> {
        let (text, from) = match &flags.etcd_user_file {
            Some(path) => (
                values::file("--etcd-user-file", path)?,
                format!("--etcd-user-file {}", path.display()),
            ),
            None => match std::env::var("ORLOP_ETCD_USER") {
                Ok(text) => (text, "ORLOP_ETCD_USER".to_owned()),
                Err(_) => return Ok(None),
            },
        };
        match text.lines().next().unwrap_or_default().split_once(':') {
            Some((name, password)) if !name.is_empty() => {
                Ok(Some((name.to_owned(), password.to_owned())))
            }
            _ => Err(Failure::new(format!("{from}: user:password is wanted"))),
        }
    }

    fn options(urls: &[String], flags: &EtcdFlags) -> Result<EtcdOptions, Failure> {
        let read = |flag: &str, path: &Option<PathBuf>| match path {
            Some(path) => values::file(flag, path),
            None => Ok(String::new()),
        };
        // History is forgotten by the API server.
        let mut options = EtcdOptions::new(urls).compaction_interval(None);
        if flags.etcd_cafile.is_some() || flags.etcd_certfile.is_some() {
            options = options.tls(EtcdTls {
                ca_pem: read("--etcd-cafile", &flags.etcd_cafile)?,
                certificate_pem: read("--etcd-certfile", &flags.etcd_certfile)?,
                key_pem: read("--etcd-keyfile", &flags.etcd_keyfile)?,
            });
        }
        if let Some((name, password)) = user(flags)? {
            options = options.user(name, password);
        }
        Ok(options)
    }

    pub(super) async fn open(
        urls: &[String],
        flags: &EtcdFlags,
        env: &Env,
    ) -> Result<Arc<dyn Store>, Failure> {
        let options = options(urls, flags)?;
        let begun = env.now();
        let mut last = None;
        loop {
            let connected = async {
                let store = EtcdStore::connect(options.clone(), env.clone()).await?;
                store.healthy().await?;
                Ok::<_, StoreError>(store)
            };
            let left = PATIENCE.saturating_sub(env.now().since(begun));
            let why = match env.timeout(left, connected).await {
                Ok(Ok(store)) => return Ok(Arc::new(store)),
                Ok(Err(StoreError::Unavailable(why))) => why,
                Ok(Err(refused)) => {
                    let urls = urls.join(", ");
                    return Err(Failure::new(format!("etcd at {urls}: {refused}")));
                }
                // An attempt that the end cut off says less than the one before.
                Err(_) => last.take().unwrap_or_else(|| "no answer".to_owned()),
            };
            let urls = urls.join(", ");
            if env.now().since(begun) + AGAIN >= PATIENCE {
                return Err(Failure::new(format!(
                    "etcd at {urls} cannot be reached: {why}"
                )));
            }
            if last.replace(why.clone()).is_none() {
                eprintln!("orlop: etcd at {urls} is waited for: {why}");
            }
            env.sleep(AGAIN).await;
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_user_comes_from_a_file() {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("user");
            let flags = EtcdFlags {
                etcd_cafile: None,
                etcd_certfile: None,
                etcd_keyfile: None,
                etcd_user_file: Some(path.clone()),
            };
            assert!(user(&flags).is_err());
            std::fs::write(&path, "root:a:b\n").unwrap();
            assert_eq!(
                user(&flags).unwrap(),
                Some(("root".to_owned(), "a:b".to_owned()))
            );
            std::fs::write(&path, "secret").unwrap();
            let failure = user(&flags).unwrap_err().to_string();
            assert!(!failure.contains("secret"), "{failure}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_is_named() {
        let parse = |text: &str| text.parse::<StoreKind>();
        assert_eq!(parse("durable"), Ok(StoreKind::Durable));
        assert_eq!(parse("memory"), Ok(StoreKind::Memory));
        let both = StoreKind::Etcd(vec!["http://a:1".to_owned(), "http://b:2".to_owned()]);
        assert_eq!(parse("etcd=http://a:1,http://b:2"), Ok(both.clone()));
        assert_eq!(parse(&both.to_string()), Ok(both));
        for bad in ["", "etcd", "etcd=", "etcd=,", "disk"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn flags_of_etcd_want_an_etcd() {
        let flags = EtcdFlags {
            etcd_cafile: Some("ca.crt".into()),
            ..EtcdFlags::default()
        };
        let opened = open(&StoreKind::Memory, &flags, None, &Env::tokio()).await;
        assert_eq!(
            opened.err().map(|failure| failure.to_string()),
            Some("--etcd-cafile is about an etcd, but the store is memory".to_owned())
        );
    }
}
