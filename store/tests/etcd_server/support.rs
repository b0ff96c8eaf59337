//! Our server in this process, a real etcd beside it, and etcdctl.

use std::io::Write;
use std::net::TcpListener as StdListener;
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

/// Whether what a test needs is on the path; says so where it is not.
pub(crate) fn have(test: &str, programs: &[&str]) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found =
        |program: &&str| std::env::split_paths(&path).any(|dir| dir.join(program).is_file());
    match programs.iter().find(|program| !found(program)) {
        None => true,
        Some(missing) => {
            println!("skipped: {test}: no {missing} on the path");
            false
        }
    }
}

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

/// A real etcd. It is killed, and its data deleted, with this.
pub(crate) struct Etcd {
    pub(crate) url: String,
    child: Child,
    _dir: TempDir,
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Etcd {
    pub(crate) fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let held: Vec<_> = (0..2)
            .map(|_| StdListener::bind("127.0.0.1:0").unwrap())
            .collect();
        let urls: Vec<_> = held
            .iter()
            .map(|socket| format!("http://{}", socket.local_addr().unwrap()))
            .collect();
        drop(held);
        let child = Command::new("etcd")
            .arg("--data-dir")
            .arg(dir.path())
            .args(["--listen-client-urls", &urls[0]])
            .args(["--advertise-client-urls", &urls[0]])
            .args(["--listen-peer-urls", &urls[1]])
            .args(["--logger=zap", "--log-level=error"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let etcd = Self {
            url: urls[0].clone(),
            child,
            _dir: dir,
        };
        let up = || etcdctl(&etcd.url, "endpoint health", "").contains("is healthy");
        for _ in 0..300 {
            if up() {
                return etcd;
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
