//! What etcd itself makes of our snapshots, and we of its.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::*;

/// A program, if there is one on the path.
fn program(name: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|dir| dir.join(name))
        .find(|path| path.is_file())
}

/// Both programs; otherwise the test is skipped, by name.
fn tools(test: &str) -> Option<(PathBuf, PathBuf)> {
    let tools = program("etcd").zip(program("etcdctl"));
    if tools.is_none() {
        println!("skipped: {test}: etcd and etcdctl are not on the path");
    }
    tools
}

struct Etcd {
    child: Child,
    url: String,
    etcdctl: PathBuf,
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn run(program: &Path, arguments: &[&str]) -> Result<Vec<u8>, String> {
    let output = Command::new(program)
        .args(arguments)
        .env("ETCDCTL_API", "3")
        .output()
        .expect("the program runs");
    if output.status.success() {
        Ok(output.stdout)
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

impl Etcd {
    async fn start(etcd: &Path, etcdctl: &Path, dir: &Path, env: &Env) -> Self {
        let free = || {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
            let port = listener.local_addr().expect("its address").port();
            format!("http://127.0.0.1:{port}")
        };
        let (url, peers) = (free(), free());
        let child = Command::new(etcd)
            .arg("--data-dir")
            .arg(dir)
            .args(["--name", "m1", "--listen-client-urls", &url])
            .args([
                "--advertise-client-urls",
                &url,
                "--listen-peer-urls",
                &peers,
            ])
            .args(["--initial-advertise-peer-urls", &peers])
            .args(["--initial-cluster", &format!("m1={peers}")])
            .args(["--unsafe-no-fsync"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("etcd starts");
        let own = Self {
            child,
            url,
            etcdctl: etcdctl.to_owned(),
        };
        for _ in 0..600 {
            if own.try_ctl(&["get", "x"]).is_ok() {
                return own;
            }
            env.sleep(std::time::Duration::from_millis(50)).await;
        }
        panic!("etcd does not come up");
    }

    fn try_ctl(&self, arguments: &[&str]) -> Result<Vec<u8>, String> {
        run(
            &self.etcdctl,
            &[&["--endpoints", &self.url], arguments].concat(),
        )
    }

    fn ctl(&self, arguments: &[&str]) -> Value {
        let out = self
            .try_ctl(&[arguments, &["-w", "json"]].concat())
            .expect("etcdctl");
        serde_json::from_slice(&out).expect("JSON")
    }

    fn everything(&self) -> (u64, Vec<KeyValue>) {
        let read = self.ctl(&["get", "", "--from-key"]);
        let number = |kv: &Value, name: &str| kv[name].as_i64().unwrap_or(0);
        let bytes = |kv: &Value, name: &str| -> Bytes {
            let text = kv[name].as_str().unwrap_or("");
            STANDARD.decode(text).expect("base64").into()
        };
        let keys = read["kvs"].as_array().map_or(&[][..], Vec::as_slice);
        let keys = keys
            .iter()
            .map(|kv| KeyValue {
                key: bytes(kv, "key"),
                value: bytes(kv, "value"),
                create_revision: Revision(number(kv, "create_revision") as u64),
                mod_revision: Revision(number(kv, "mod_revision") as u64),
                version: number(kv, "version") as u64,
                lease: Some(LeaseId(number(kv, "lease"))).filter(|lease| lease.0 != 0),
            })
            .collect();
        (
            read["header"]["revision"].as_u64().expect("a revision"),
            keys,
        )
    }
}

#[tokio::test]
async fn etcd_takes_our_snapshots() {
    let Some((etcd, etcdctl)) = tools("etcd_takes_our_snapshots") else {
        return;
    };
    let env = Env::tokio();
    let store = filled(&env).await;
    // The newest commit is a deletion, of a key that etcd is not to know of.
    let key = everything(&store).await.pop().expect("a key");
    store
        .commit(Txn::delete(key.key, key.mod_revision))
        .await
        .expect("a commit");
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("snapshot.db");
    let file = File::create_new(&path).expect("a file");
    drop(file);
    let file = File::options()
        .read(true)
        .write(true)
        .open(&path)
        .expect("the file");
    let info = save(&store, &env, file).await.expect("a snapshot");
    let path = path.to_str().expect("a path");

    let status = run(&etcdctl, &["snapshot", "status", path, "-w", "json"]).expect("a status");
    let status: Value = serde_json::from_slice(&status).expect("JSON");
    assert_eq!(status["revision"].as_u64(), Some(info.revision.0));
    assert_eq!(status["totalSize"].as_u64(), Some(info.bytes - CHECKSUM));

    let data = dir.path().join("data");
    let data = data.to_str().expect("a path");
    run(
        &etcdctl,
        &[
            "snapshot",
            "restore",
            path,
            "--data-dir",
            data,
            "--name",
            "m1",
            "--initial-cluster",
            "m1=http://127.0.0.1:1",
            "--initial-advertise-peer-urls",
            "http://127.0.0.1:1",
        ],
    )
    .expect("a restore");
    let restored = Etcd::start(&etcd, &etcdctl, Path::new(data), &env).await;
    let (revision, keys) = restored.everything();
    assert_eq!(revision, info.revision.0);
    assert_eq!(keys, everything(&store).await);
    let lease = restored.ctl(&["lease", "timetolive", "1234", "--keys"]);
    assert_eq!(lease["granted-ttl"].as_u64(), Some(600));
    assert_eq!(lease["keys"].as_array().map(Vec::len), Some(2));
    // The next revision is the next one, and what was before is compacted.
    let written = restored.ctl(&["put", "/after", "x"]);
    assert_eq!(written["header"]["revision"].as_u64(), Some(revision + 1));
    let old = restored.try_ctl(&["get", "x", "--rev", &(revision - 1).to_string()]);
    assert!(old.expect_err("an old revision").contains("compacted"));
    restored
        .try_ctl(&["get", "x", "--rev", &revision.to_string()])
        .expect("the revision");
    restored
        .try_ctl(&["compact", &(revision + 1).to_string()])
        .expect("a compaction");
    restored.try_ctl(&["defrag"]).expect("a defragmentation");
    assert_eq!(restored.everything().1.len(), keys.len() + 1);
}

#[tokio::test]
async fn we_take_etcds_snapshots() {
    let Some((etcd, etcdctl)) = tools("we_take_etcds_snapshots") else {
        return;
    };
    let env = Env::tokio();
    let dir = tempfile::tempdir().expect("a directory");
    let running = Etcd::start(&etcd, &etcdctl, &dir.path().join("data"), &env).await;
    let large = "v".repeat(100_000);
    running
        .try_ctl(&["lease", "grant", "500"])
        .expect("a lease");
    let leases = running.ctl(&["lease", "list"]);
    let lease = leases["leases"][0]["id"].as_i64().expect("an id");
    for n in 0..60 {
        running
            .try_ctl(&["put", &format!("/k/{}", n % 25), &large[..n * 61]])
            .expect("a put");
    }
    running.try_ctl(&["put", "/large", &large]).expect("a put");
    running
        .try_ctl(&["put", "/hung", "x", "--lease", &format!("{lease:x}")])
        .expect("a put");
    running.try_ctl(&["compact", "30"]).expect("a compaction");
    running
        .try_ctl(&["del", "/k/1", "/k/2"])
        .expect("a deletion");
    let path = dir.path().join("snapshot.db");
    running
        .try_ctl(&["snapshot", "save", path.to_str().expect("a path")])
        .expect("a snapshot");
    let (revision, keys) = running.everything();
    let (info, read, leases) =
        state(&File::open(&path).expect("the snapshot")).expect("a snapshot");
    assert_eq!(info.revision, Revision(revision));
    assert_eq!(read, keys);
    assert_eq!(leases, BTreeMap::from([(LeaseId(lease), 500)]));
    assert!(info.checksum && info.keys > keys.len() as u64, "{info:?}");

    #[cfg(feature = "etcd")]
    {
        let store =
            crate::EtcdStore::connect(crate::EtcdOptions::new([running.url.clone()]), env.clone());
        let store = store.await.expect("a store in etcd");
        // etcd's own, and what is saved by reading.
        let own = tempfile::tempfile().expect("a file");
        let length = store.snapshot(&own).await.expect("a snapshot");
        let by_reading = tempfile::tempfile().expect("a file");
        save(&store, &env, by_reading.try_clone().expect("the file"))
            .await
            .expect("a snapshot");
        for (file, length) in [(own, Some(length)), (by_reading, None)] {
            let (info, read, leases) = state(&file).expect("a snapshot");
            assert_eq!(info.revision, Revision(revision));
            assert!(read == keys, "the keys are others");
            assert_eq!(leases, BTreeMap::from([(LeaseId(lease), 500)]));
            assert!(info.checksum && length.is_none_or(|length| length == info.bytes));
        }
        store.close().await;
    }
}
