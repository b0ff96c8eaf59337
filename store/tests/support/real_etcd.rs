//! Processes of the real etcd.

use std::fs::File;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

/// How a cluster is set up.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings {
    /// Further arguments of every member.
    pub(crate) args: Vec<String>,
    /// Whether clients speak TLS. The arguments have to say with what.
    pub(crate) https: bool,
}

/// A cluster of etcd on the loopback interface. It is killed, and its data deleted, with this.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) members: Vec<Member>,
    https: bool,
    /// Where the data is; deleted with this.
    _dir: TempDir,
}

#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) client: u16,
    pub(crate) args: Vec<String>,
    pub(crate) log: PathBuf,
    pub(crate) child: Option<Child>,
}

impl Drop for Member {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Member {
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    pub(crate) fn start(&mut self) {
        let log = File::options()
            .create(true)
            .append(true)
            .open(&self.log)
            .expect("a log of etcd");
        let child = Command::new("etcd")
            .args(&self.args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("etcd starts");
        self.child = Some(child);
    }
}

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

/// Ports that nobody listens on.
pub(crate) fn free_ports(count: usize) -> Vec<u16> {
    // All are held until all are chosen, so that they differ.
    let held: Vec<_> = (0..count)
        .map(|_| TcpListener::bind("127.0.0.1:0").expect("a free port"))
        .collect();
    held.iter()
        .map(|listener| listener.local_addr().expect("its address").port())
        .collect()
}

impl Cluster {
    /// Starts a cluster; `None`, after saying so, where there is no etcd.
    pub(crate) fn start_with(test: &str, size: usize, settings: Settings) -> Option<Self> {
        if !have(test, &["etcd", "etcdctl"]) {
            return None;
        }
        let dir = tempfile::tempdir().expect("a temporary directory");
        let ports = free_ports(2 * size);
        let peer = |n: usize| format!("http://127.0.0.1:{}", ports[2 * n + 1]);
        let scheme = if settings.https { "https" } else { "http" };
        let initial: Vec<_> = (0..size).map(|n| format!("m{n}={}", peer(n))).collect();
        let members = (0..size)
            .map(|n| {
                let client = format!("{scheme}://127.0.0.1:{}", ports[2 * n]);
                let data = dir.path().join(format!("m{n}"));
                let mut args = vec![
                    format!("--name=m{n}"),
                    format!("--data-dir={}", data.display()),
                    format!("--listen-client-urls={client}"),
                    format!("--advertise-client-urls={client}"),
                    format!("--listen-peer-urls={}", peer(n)),
                    format!("--initial-advertise-peer-urls={}", peer(n)),
                    format!("--initial-cluster={}", initial.join(",")),
                    "--heartbeat-interval=50".to_owned(),
                    "--election-timeout=500".to_owned(),
                    "--logger=zap".to_owned(),
                    "--log-level=warn".to_owned(),
                ];
                args.extend(settings.args.iter().cloned());
                let mut member = Member {
                    client: ports[2 * n],
                    args,
                    log: dir.path().join(format!("m{n}.log")),
                    child: None,
                };
                member.start();
                member
            })
            .collect();
        Some(Self {
            members,
            https: settings.https,
            _dir: dir,
        })
    }

    /// The client URL of a member.
    pub(crate) fn endpoint(&self, member: usize) -> String {
        let scheme = if self.https { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}", self.members[member].client)
    }
}
