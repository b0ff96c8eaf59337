//! `--encryption-provider-config`: values that are encrypted in the store.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use orlop::core::env::{Env, TaskGroup};
use orlop::core::store::Store;
use orlop::store::encryption::{EncryptedStore, EncryptionConfiguration, RewritePace, Rewritten};
use orlop::wire::yaml;
use ring::digest::{SHA256, digest};

use super::Failure;

/// How often the file is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// How many values a second are rewritten.
const REWRITES_PER_SECOND: u32 = 500;
/// No configuration is so large.
const LARGEST: u64 = 1 << 20;

/// What can be said of encryption, by kube-apiserver's names.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct EncryptionFlags {
    /// A file that says which resources are encrypted in the store, and with which keys: an EncryptionConfiguration
    #[arg(long, value_name = "FILE")]
    encryption_provider_config: Option<PathBuf>,

    /// Read that file again when its content changes; it is looked at each minute
    #[arg(
        long,
        value_name = "BOOL",
        requires = "encryption_provider_config",
        action = clap::ArgAction::Set,
        num_args = 0..=1,
        require_equals = true,
        default_value_t = false,
        default_missing_value = "true"
    )]
    encryption_provider_config_automatic_reload: bool,
}

/// The encryption of a store, and the file that rules it.
pub(crate) struct Encryption {
    store: Arc<EncryptedStore>,
    file: Option<File>,
    reload: bool,
}

/// A file, and what was in it.
struct File {
    path: PathBuf,
    digest: Vec<u8>,
}

impl EncryptionFlags {
    /// Puts encryption over a store. Without a configuration nothing is encrypted, and what is encrypted is not taken for something else.
    pub(crate) fn over(&self, store: Arc<dyn Store>) -> Result<Encryption, Failure> {
        let (config, file) = match &self.encryption_provider_config {
            None => (EncryptionConfiguration::none(), None),
            Some(path) => {
                let (config, digest) = read(path)?;
                let path = path.clone();
                (config, Some(File { path, digest }))
            }
        };
        Ok(Encryption {
            store: Arc::new(EncryptedStore::new(store, &config)),
            file,
            reload: self.encryption_provider_config_automatic_reload,
        })
    }
}

impl Encryption {
    /// The store with plain values.
    pub(crate) fn store(&self) -> Arc<dyn Store> {
        self.store.clone()
    }

    /// Rewrites, in the background, what is stored in another way than the configuration says; and reads the configuration again, if that is asked for.
    pub(crate) fn keep(self, env: &Env, tasks: &TaskGroup) {
        let Some(file) = self.file else {
            return;
        };
        let (store, env, reload) = (self.store, env.clone(), self.reload);
        tasks.spawn_until_cancelled("encryption", async move {
            keep(&store, file, reload, &env).await;
        });
    }
}

async fn keep(store: &EncryptedStore, mut file: File, reload: bool, env: &Env) {
    let pace = RewritePace::per_second(env.clone(), REWRITES_PER_SECOND);
    let mut stale = true;
    while stale || reload {
        if stale {
            match store.rewrite_stale(&pace).await {
                Ok(done) => {
                    stale = false;
                    tell(&done);
                }
                Err(error) => {
                    tracing::warn!(%error, "values are rewritten again in a minute");
                }
            }
        }
        env.sleep(LOOK_EVERY).await;
        if reload {
            stale |= look(store, &mut file);
        }
    }
}

/// Takes the file's configuration if its content has changed. A file that cannot be used changes nothing.
fn look(store: &EncryptedStore, file: &mut File) -> bool {
    match read(&file.path) {
        Ok((_, digest)) if digest == file.digest => false,
        Ok((config, digest)) => {
            store.reload(&config);
            file.digest = digest;
            tracing::info!(file = %file.path.display(), "the configuration of encryption was read again");
            true
        }
        Err(failure) => {
            tracing::error!(%failure, "the configuration of encryption stays as it was");
            false
        }
    }
}

fn tell(done: &Rewritten) {
    if done.rewritten > 0 {
        eprintln!(
            "orlop: {} of {} values in the store were rewritten as --encryption-provider-config says",
            done.rewritten, done.examined
        );
    }
    if let Some(first) = &done.first_unreadable {
        tracing::error!(
            values = done.unreadable,
            first,
            "values in the store cannot be decrypted"
        );
    }
}

/// Reads a configuration, with a digest of what is in the file.
fn read(path: &Path) -> Result<(EncryptionConfiguration, Vec<u8>), Failure> {
    let wrong = |why: &dyn std::fmt::Display| {
        Failure::new(format!(
            "--encryption-provider-config {}: {why}",
            path.display()
        ))
    };
    let size = std::fs::metadata(path)
        .map_err(|error| wrong(&error))?
        .len();
    if size > LARGEST {
        return Err(wrong(&format_args!("{size} bytes are too many")));
    }
    let content = std::fs::read(path).map_err(|error| wrong(&error))?;
    if content.is_empty() {
        return Err(wrong(&"the file is empty"));
    }
    let document = yaml::from_slice(&content).map_err(|error| wrong(&error))?;
    let config = EncryptionConfiguration::from_json(&document).map_err(|error| wrong(&error))?;
    Ok((config, digest(&SHA256, &content).as_ref().to_vec()))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use orlop::core::env::SimEnv;
    use orlop::core::revision::Revision;
    use orlop::core::store::{KeyRange, RangeRequest, Txn};
    use orlop::store::MemoryStore;

    use super::*;

    const KEY: &str = "/registry/core/secrets/default/a";

    fn config(keys: &[&str]) -> String {
        let keys: String = keys
            .iter()
            .map(|name| format!("      - {{name: {name}, secret: AAECAwQFBgcICQoLDA0ODw==}}\n"))
            .collect();
        format!(
            "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n- resources: [secrets]\n  providers:\n  - aesgcm:\n      keys:\n{keys}  - identity: {{}}\n"
        )
    }

    fn failure(path: &Path) -> String {
        read(path).err().map(|failure| failure.to_string()).unwrap()
    }

    #[test]
    fn the_flags_are_kube_apiserver_s() {
        use clap::Parser;
        #[derive(Parser)]
        struct Arguments {
            #[command(flatten)]
            options: EncryptionFlags,
        }
        let file = ["x", "--encryption-provider-config", "f"];
        let reload = |more: &[&'static str]| {
            let words = file.iter().chain(more);
            let parsed = Arguments::try_parse_from(words).ok()?;
            Some(parsed.options.encryption_provider_config_automatic_reload)
        };
        assert_eq!(reload(&[]), Some(false));
        assert_eq!(
            reload(&["--encryption-provider-config-automatic-reload"]),
            Some(true)
        );
        assert_eq!(
            reload(&["--encryption-provider-config-automatic-reload=false"]),
            Some(false)
        );
        let alone = ["x", "--encryption-provider-config-automatic-reload"];
        assert!(Arguments::try_parse_from(alone).is_err());
    }

    #[test]
    fn a_file_that_cannot_be_used_is_named_with_what_is_wrong() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let begins = format!("--encryption-provider-config {}: ", file.path().display());
        assert_eq!(failure(file.path()), format!("{begins}the file is empty"));
        file.write_all(config(&[]).replace("aesgcm", "aescbc").as_bytes())
            .unwrap();
        assert_eq!(
            failure(file.path()),
            format!(
                "{begins}resources[0].providers[0].aescbc.keys: Required value: at least one keys is required"
            )
        );
        let gone = Path::new("/nonexistent/encryption.yaml");
        assert!(failure(gone).starts_with("--encryption-provider-config /nonexistent/"));
    }

    #[test]
    fn a_changed_file_is_taken_and_a_broken_one_is_not() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_owned();
        std::fs::write(&path, config(&["one"])).unwrap();
        let sim = SimEnv::new(1);
        let env = sim.env();
        sim.block_on(async move {
            let inner: Arc<dyn Store> = Arc::new(MemoryStore::new(env.clone()));
            inner.commit(Txn::put(KEY, "plain")).await.unwrap();
            let options = EncryptionFlags {
                encryption_provider_config: Some(path.clone()),
                encryption_provider_config_automatic_reload: true,
            };
            let encryption = options.over(inner.clone()).unwrap();
            let store = encryption.store();
            let tasks = TaskGroup::new(env.clone());
            encryption.keep(&env, &tasks);
            let stored = || {
                let inner = inner.clone();
                async move {
                    let read = inner.range(RangeRequest::new(KeyRange::key(KEY))).await;
                    read.unwrap().items.remove(0).value
                }
            };
            env.sleep(Duration::from_secs(1)).await;
            assert!(stored().await.starts_with(b"k8s:enc:aesgcm:v1:one:"));

            std::fs::write(&path, "nonsense").unwrap();
            env.sleep(LOOK_EVERY).await;
            assert!(stored().await.starts_with(b"k8s:enc:aesgcm:v1:one:"));
            store.commit(Txn::put(KEY, "secret")).await.unwrap();
            assert!(stored().await.starts_with(b"k8s:enc:aesgcm:v1:one:"));

            std::fs::write(&path, config(&["two", "one"])).unwrap();
            env.sleep(LOOK_EVERY).await;
            assert!(stored().await.starts_with(b"k8s:enc:aesgcm:v1:two:"));
            let read = store.range(RangeRequest::new(KeyRange::key(KEY))).await;
            assert_eq!(read.unwrap().items[0].value.as_ref(), b"secret");

            // Nothing is written for nothing.
            env.sleep(LOOK_EVERY * 10).await;
            assert_eq!(inner.revision().await.unwrap(), Revision(5));
            tasks.shutdown().await;
        });
    }
}
