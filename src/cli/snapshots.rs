//! `orlop store`: backups of a cluster's store, and the way back.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use orlop::core::env::Env;
use orlop::core::store::{KeyRange, RangeRequest, Store, StoreError};
use orlop::store::{DurableOptions, DurableStore, SnapshotInfo, Upkeep, snapshot};
#[cfg(feature = "etcd")]
use orlop::store::{EtcdOptions, EtcdStore};

use super::{Failure, directory};

/// What `orlop store` can be told.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Save all keys and leases in a file that etcd's tools read as well
    Backup(Backup),
    /// Make a store of such a file, from here or from `etcdctl snapshot save`
    Restore(Restore),
    /// Look into such a file, or into a store
    Status(Status),
}

#[derive(Debug, Args)]
struct Backup {
    /// Where to write to
    file: PathBuf,

    /// Where the cluster is kept [default: ~/.local/share/orlop]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,

    /// Replace the file if it is there
    #[arg(long)]
    replace: bool,
}

#[derive(Debug, Args)]
struct Restore {
    /// The snapshot
    file: PathBuf,

    /// Where the cluster is to be kept; it must have no store yet [default: ~/.local/share/orlop]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct Status {
    /// The snapshot
    #[arg(conflicts_with = "data_dir")]
    file: Option<PathBuf>,

    /// Where a cluster is kept whose store is meant [default: ~/.local/share/orlop]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

/// Does what was asked for.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    match options.command {
        Command::Backup(options) => backup(options).await,
        Command::Restore(options) => restore(options),
        Command::Status(options) => status(options).await,
    }
}

fn data_dir(given: Option<PathBuf>) -> Result<PathBuf, Failure> {
    given.map_or_else(directory::default, Ok)
}

/// Where in a cluster's directory the store is.
fn store_of(data_dir: &Path) -> Result<PathBuf, Failure> {
    let store = data_dir.join("store");
    let has_store = std::fs::read_dir(&store).is_ok_and(|mut entries| entries.next().is_some());
    if has_store {
        return Ok(store);
    }
    Err(Failure::new(format!(
        "there is no store in {}",
        data_dir.display()
    )))
}

/// A store, by whoever may use it.
enum Opened {
    /// Nobody else does.
    Own(DurableStore),
    /// A program that runs does, and is asked by its socket.
    #[cfg(feature = "etcd")]
    Served(Box<EtcdStore>),
}

impl Opened {
    fn store(&self) -> &dyn Store {
        match self {
            Self::Own(store) => store,
            #[cfg(feature = "etcd")]
            Self::Served(store) => &**store,
        }
    }

    async fn close(&self) {
        match self {
            Self::Own(store) => store.close().await,
            #[cfg(feature = "etcd")]
            Self::Served(store) => store.close().await,
        }
    }

    async fn save(&self, path: &Path, replace: bool) -> Result<SnapshotInfo, StoreError> {
        match self {
            Self::Own(store) => store.backup(path, replace).await,
            #[cfg(feature = "etcd")]
            Self::Served(store) => {
                let saved = snapshot::SnapshotFile::create(path, replace)?;
                store.snapshot(saved.file()).await?;
                let info = snapshot::read(saved.file(), &mut |_| Ok(()))?;
                saved.finish()?;
                Ok(info)
            }
        }
    }
}

/// Opens the store of a cluster, or asks the program that has it open.
async fn open(data_dir: &Path, env: &Env) -> Result<Opened, Failure> {
    #[cfg(feature = "etcd")]
    if let Some(store) = served(data_dir, env).await? {
        return Ok(Opened::Served(Box::new(store)));
    }
    let store = store_of(data_dir)?;
    match DurableStore::open(&store, DurableOptions::default(), env.clone()) {
        Ok(store) => Ok(Opened::Own(store)),
        Err(error) => Err(match holder(&store.join("lock")) {
            Some(process) if matches!(error, StoreError::Unavailable(_)) => Failure::new(format!(
                "{process} uses the store in {} and does not serve it here: stop it first",
                store.display()
            )),
            _ => error.into(),
        }),
    }
}

/// The store of a program that serves it at the cluster's socket.
#[cfg(feature = "etcd")]
async fn served(data_dir: &Path, env: &Env) -> Result<Option<EtcdStore>, Failure> {
    let socket = data_dir.join(super::door::SOCKET);
    // One that nobody listens at is what a killed program left.
    if std::os::unix::net::UnixStream::connect(&socket).is_err() {
        return Ok(None);
    }
    let socket = socket.canonicalize()?;
    let options = EtcdOptions::new([format!("unix://{}", socket.display())]);
    Ok(Some(EtcdStore::connect(options, env.clone()).await?))
}

/// The process that holds the lock on a file, as far as the kernel tells.
fn holder(lock: &Path) -> Option<String> {
    let inode = std::fs::metadata(lock).ok()?.ino().to_string();
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    let id = holder_in(&locks, &inode)?;
    let name = std::fs::read_to_string(format!("/proc/{id}/comm")).unwrap_or_default();
    Some(match name.trim() {
        "" => format!("the process {id}"),
        name => format!("{name} (process {id})"),
    })
}

/// The process of the first lock on an inode in a text as that of `/proc/locks`.
fn holder_in(locks: &str, inode: &str) -> Option<u32> {
    locks.lines().find_map(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        let [_, "FLOCK", _, _, process, file, ..] = words.as_slice() else {
            return None;
        };
        (file.rsplit(':').next()? == inode)
            .then(|| process.parse().ok())
            .flatten()
    })
}

fn plural(count: u64, what: &str) -> String {
    let end = if count == 1 { "" } else { "s" };
    format!("{count} {what}{end}")
}

fn contents(info: &SnapshotInfo) -> String {
    format!(
        "revision {}, {}, {}, {}",
        info.revision,
        plural(info.keys, "key"),
        plural(info.leases, "lease"),
        plural(info.bytes, "byte"),
    )
}

async fn backup(options: Backup) -> Result<(), Failure> {
    let env = Env::tokio();
    let store = open(&data_dir(options.data_dir)?, &env).await?;
    let saved = store.save(&options.file, options.replace).await;
    store.close().await;
    let info = saved.map_err(|error| match error {
        StoreError::InvalidRequest(text) => Failure::new(format!("{text}; --replace replaces it")),
        error => error.into(),
    })?;
    println!("saved {} in {}", contents(&info), options.file.display());
    Ok(())
}

fn restore(options: Restore) -> Result<(), Failure> {
    let data_dir = directory::make(&data_dir(options.data_dir)?)?;
    let lock = directory::lock(&data_dir)?;
    let store = data_dir.join("store");
    let info = DurableStore::restore(&options.file, &store, &Env::tokio())
        .map_err(|error| in_file(&options.file, error))?;
    drop(lock);
    println!("restored {} to {}", contents(&info), store.display());
    if !info.checksum {
        println!(
            "the file has no checksum: whether it was damaged could be seen by its form alone"
        );
    }
    Ok(())
}

/// What is wrong with a snapshot, and which one it is.
fn in_file(file: &Path, error: StoreError) -> Failure {
    match error {
        StoreError::Corrupt(why) => Failure::new(format!("{}: corrupt: {why}", file.display())),
        error => error.into(),
    }
}

async fn status(options: Status) -> Result<(), Failure> {
    let Some(file) = options.file else {
        return status_of_store(&data_dir(options.data_dir)?).await;
    };
    if file.is_dir() {
        let file = file.display();
        return Err(Failure::new(format!(
            "{file} is a directory: --data-dir {file} looks into the store of a cluster"
        )));
    }
    let opened = File::open(&file)
        .map_err(|error| Failure::new(format!("cannot open {}: {error}", file.display())))?;
    let info = snapshot::read(&opened, &mut |_| Ok(())).map_err(|error| in_file(&file, error))?;
    println!("revision  {}", info.revision);
    println!("versions  {}", info.keys);
    println!("leases    {}", info.leases);
    println!("bytes     {}", info.bytes);
    println!("checksum  {}", if info.checksum { "right" } else { "none" });
    Ok(())
}

async fn status_of_store(data_dir: &Path) -> Result<(), Failure> {
    let env = Env::tokio();
    let opened = open(data_dir, &env).await?;
    let store = opened.store();
    let request = RangeRequest {
        count_only: true,
        ..RangeRequest::new(KeyRange::prefix(""))
    };
    let read = store.range(request).await?;
    let leases = store.leases().await?.len();
    let size = match &opened {
        Opened::Own(store) => Some(store.size()),
        #[cfg(feature = "etcd")]
        Opened::Served(_) => None,
    };
    opened.close().await;
    println!("revision  {}", read.revision);
    println!("keys      {}", read.remaining);
    println!("leases    {leases}");
    if let Some(size) = size {
        println!("bytes     {}, of them in use {}", size.total, size.in_use);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_of_a_lock_is_found() {
        let locks = "1: POSIX  ADVISORY  WRITE 11 fd:00:77 0 EOF\n\
                     2: FLOCK  ADVISORY  WRITE 12 fd:00:777 0 EOF\n\
                     3: FLOCK  ADVISORY  WRITE 13 fd:00:77 0 EOF\n";
        assert_eq!(holder_in(locks, "77"), Some(13));
        assert_eq!(holder_in(locks, "7"), None);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_store_is_saved_restored_and_looked_at() {
        let dir = tempfile::tempdir().expect("a directory");
        let (first, second) = (dir.path().join("first"), dir.path().join("second"));
        let file = dir.path().join("snapshot.db");
        let env = Env::tokio();
        let open_store =
            || DurableStore::open(first.join("store"), DurableOptions::default(), env.clone());
        let told = |outcome: Result<(), Failure>| outcome.expect_err("it is refused").to_string();
        let backup = |replace| Options {
            command: Command::Backup(Backup {
                file: file.clone(),
                data_dir: Some(first.clone()),
                replace,
            }),
        };
        let restore = |to: &Path| Options {
            command: Command::Restore(Restore {
                file: file.clone(),
                data_dir: Some(to.to_owned()),
            }),
        };
        assert!(told(run(backup(false)).await).contains("there is no store"));
        let store = open_store().expect("a store");
        store
            .commit(orlop::core::store::Txn::put("/a", "1"))
            .await
            .expect("a commit");
        let error = told(run(backup(false)).await);
        assert!(
            error.contains(&format!("(process {}) uses the store", std::process::id())),
            "{error}"
        );
        #[cfg(feature = "etcd")]
        let store = {
            // What runs is asked by its socket, also where a killed program left one.
            let store: std::sync::Arc<DurableStore> = store.into();
            drop(
                std::os::unix::net::UnixListener::bind(first.join("store.sock")).expect("a socket"),
            );
            let door = super::super::door::Door::open(store.clone(), &first, &env).expect("a door");
            use std::os::unix::fs::PermissionsExt;
            let socket = std::fs::metadata(first.join("store.sock")).expect("the socket");
            assert_eq!(socket.permissions().mode() & 0o777, 0o600);
            run(backup(false)).await.expect("a backup of what runs");
            assert!(told(run(backup(false)).await).contains("--replace"));
            let command = Command::Status(Status {
                file: None,
                data_dir: Some(first.clone()),
            });
            run(Options { command })
                .await
                .expect("a status of what runs");
            run(restore(&dir.path().join("third")))
                .await
                .expect("a restore");
            door.close().await;
            assert!(!first.join("store.sock").exists());
            std::fs::remove_file(&file).expect("the snapshot");
            store
        };
        store.close().await;
        drop(store);
        run(backup(false)).await.expect("a backup");
        assert!(told(run(backup(false)).await).contains("--replace"));
        run(backup(true)).await.expect("a backup again");
        run(restore(&second)).await.expect("a restore");
        assert!(told(run(restore(&second)).await).contains("is not empty"));
        for (of, data_dir) in [(Some(file.clone()), None), (None, Some(second.clone()))] {
            let command = Command::Status(Status { file: of, data_dir });
            run(Options { command }).await.expect("a status");
        }
        let status = |of: &Path| Options {
            command: Command::Status(Status {
                file: Some(of.to_owned()),
                data_dir: None,
            }),
        };
        let error = told(run(status(&second)).await);
        assert!(error.contains("is a directory: --data-dir"), "{error}");
        let whole = std::fs::read(&file).expect("the snapshot");
        std::fs::write(&file, &whole[..whole.len() / 2]).expect("half of it");
        for command in [status(&file), restore(&dir.path().join("fourth"))] {
            let error = told(run(command).await);
            let named = format!("{}: corrupt: ", file.display());
            assert!(error.starts_with(&named), "{error}");
        }
        let store = DurableStore::open(second.join("store"), DurableOptions::default(), env)
            .expect("the restored store");
        assert_eq!(store.revision().await.expect("the revision").0, 2);
    }
}
