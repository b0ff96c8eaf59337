//! Our server in this process, a real etcd beside it, and etcdctl.

#[path = "../support/real_etcd.rs"]
mod real_etcd;

use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use orlop_core::env::{CancelToken, Env, TaskGroup};
use orlop_core::store::Store;
use orlop_store::{DurableOptions, DurableStore, EtcdServer, EtcdServerOptions};
use orlop_wire::listener::ServerTls;
use tempfile::TempDir;
use tokio::net::TcpListener;

pub(crate) use self::real_etcd::have;
use self::real_etcd::{Cluster, Settings};

/// Our server on a durable store in a directory of its own.
pub(crate) struct Served {
    pub(crate) url: String,
    pub(crate) store: Arc<DurableStore>,
    pub(crate) dir: TempDir,
    server: EtcdServer,
    cancel: CancelToken,
    tasks: TaskGroup,
}

impl Served {
    pub(crate) async fn start(change: impl FnOnce(&mut EtcdServerOptions)) -> Self {
        Self::start_with(None, change).await
    }

    pub(crate) async fn start_with(
        tls: Option<ServerTls>,
        change: impl FnOnce(&mut EtcdServerOptions),
    ) -> Self {
        let env = Env::tokio();
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let store = DurableStore::open(&data, DurableOptions::default(), env.clone()).unwrap();
        let store = Arc::new(store);
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://{}", socket.local_addr().unwrap());
        let mut options = EtcdServerOptions::new("default");
        options.client_urls = vec![url.clone()];
        options.peer_urls = vec!["http://localhost:2380".to_owned()];
        options.upkeep = Some(store.clone());
        options.scratch_dir = dir.path().to_owned();
        change(&mut options);
        let server = EtcdServer::new(store.clone() as Arc<dyn Store>, options, env.clone());
        let cancel = CancelToken::new();
        let tasks = TaskGroup::with_parent(env, &cancel);
        let (own, serving) = (cancel.clone(), server.clone());
        tasks.spawn("server", async move {
            serving.serve(socket, tls, &own).await.unwrap();
        });
        Self {
            url,
            store,
            dir,
            server,
            cancel,
            tasks,
        }
    }

    /// Serves at a socket of this machine, too.
    pub(crate) fn also_at(&self, path: &Path) {
        let socket = tokio::net::UnixListener::bind(path).unwrap();
        let (server, cancel) = (self.server.clone(), self.cancel.clone());
        self.tasks.spawn("socket", async move {
            server.serve_unix(socket, &cancel).await.unwrap();
        });
    }

    /// Ends it, which must not take long however many watches there are.
    pub(crate) async fn stop(self) {
        self.cancel.cancel();
        self.tasks.idle().await;
    }
}

/// A real etcd that answers.
pub(crate) struct Etcd {
    pub(crate) url: String,
    _cluster: Cluster,
}

impl Etcd {
    /// Starts one; `None`, after saying so, where there is no etcd.
    pub(crate) fn start(test: &str) -> Option<Self> {
        // The shortest lease follows from the election timeout, which is etcd's own here.
        let settings = Settings {
            args: ["--heartbeat-interval=100", "--election-timeout=1000"]
                .map(str::to_owned)
                .to_vec(),
            ..Settings::default()
        };
        let cluster = Cluster::start_with(test, 1, settings)?;
        let url = cluster.endpoint(0);
        let up = || etcdctl(&url, "endpoint health", "").contains("is healthy");
        for _ in 0..300 {
            if up() {
                return Some(Self {
                    url,
                    _cluster: cluster,
                });
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("etcd did not start");
    }
}

/// Runs etcdctl with words, and text on its standard input; what it says on both outputs, without its log.
pub(crate) fn etcdctl(url: &str, words: &str, input: &str) -> String {
    let words: Vec<&str> = words
        .split_whitespace()
        .map(|word| if word == "''" { "" } else { word })
        .collect();
    run(url, &words, input, None)
}

/// The same for a time: for what does not end by itself.
pub(crate) fn etcdctl_for(url: &str, words: &str, input: &str, seconds: u32) -> String {
    let words: Vec<&str> = words
        .split_whitespace()
        .map(|word| if word == "''" { "" } else { word })
        .collect();
    run(url, &words, input, Some(seconds))
}

fn run(url: &str, words: &[&str], input: &str, seconds: Option<u32>) -> String {
    let mut command = match seconds {
        None => Command::new("etcdctl"),
        Some(seconds) => {
            let mut command = Command::new("timeout");
            command.args([&seconds.to_string(), "etcdctl"]);
            command
        }
    };
    let mut child = command
        .env("ETCDCTL_API", "3")
        .arg(format!("--endpoints={url}"))
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).unwrap();
    // A watch ends with its input where that is its commands.
    if seconds.is_none() {
        drop(stdin);
        return said(child);
    }
    let said = said(child);
    drop(stdin);
    said
}

fn said(child: Child) -> String {
    let output = child.wait_with_output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    let lines = text
        .lines()
        .filter(|line| !line.starts_with("{\"level\":\"warn\""));
    lines.map(|line| format!("{line}\n")).collect()
}

/// A path as text.
pub(crate) fn text(path: &Path) -> String {
    path.display().to_string()
}
