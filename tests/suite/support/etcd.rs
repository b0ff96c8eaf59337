//! A real etcd.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::eventually;

/// A cluster of etcd on this machine. Its members are killed when it is dropped.
pub(crate) struct EtcdCluster {
    members: Vec<Child>,
    urls: Vec<String>,
}

/// A port that was free a moment ago.
fn port() -> u16 {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    socket.local_addr().unwrap().port()
}

fn is_healthy(url: &str) -> bool {
    Command::new("etcdctl")
        .env("ETCDCTL_API", "3")
        .args(["--endpoints", url, "endpoint", "health"])
        .output()
        .is_ok_and(|out| out.status.success())
}

impl EtcdCluster {
    /// Whether there is an etcd. Where there is none, says which test is skipped.
    pub(crate) fn is_there(test: &str) -> bool {
        let runs = |program: &str, version: &str| {
            Command::new(program)
                .arg(version)
                .env("ETCDCTL_API", "3")
                .output()
                .is_ok_and(|out| out.status.success())
        };
        let there = runs("etcd", "--version") && runs("etcdctl", "version");
        if !there {
            println!("SKIPPED {test}: etcd and etcdctl are not on PATH");
        }
        there
    }

    /// So many members with their data in a directory.
    pub(crate) fn start(directory: &Path, count: usize) -> Self {
        let ports: Vec<(u16, u16)> = (0..count).map(|_| (port(), port())).collect();
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let all: Vec<String> = ports
            .iter()
            .enumerate()
            .map(|(n, (_, peer))| format!("m{n}={}", url(*peer)))
            .collect();
        let start = |(n, (client, peer)): (usize, &(u16, u16))| {
            Command::new("etcd")
                .args(["--name", &format!("m{n}")])
                .arg("--data-dir")
                .arg(directory.join(format!("etcd-{n}")))
                .args(["--listen-client-urls", &url(*client)])
                .args(["--advertise-client-urls", &url(*client)])
                .args(["--listen-peer-urls", &url(*peer)])
                .args(["--initial-advertise-peer-urls", &url(*peer)])
                .args(["--initial-cluster", &all.join(",")])
                .args(["--initial-cluster-state", "new", "--logger", "zap"])
                .args(["--log-level", "fatal"])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap()
        };
        let members = ports.iter().enumerate().map(start).collect();
        let urls: Vec<String> = ports.iter().map(|(client, _)| url(*client)).collect();
        let cluster = Self { members, urls };
        for url in &cluster.urls {
            eventually("etcd is healthy", || is_healthy(url).then_some(()));
        }
        cluster
    }

    /// Where clients reach it.
    pub(crate) fn urls(&self) -> String {
        self.urls.join(",")
    }

    /// `kill -9` of a member.
    pub(crate) fn kill(&mut self, member: usize) {
        self.members[member].kill().unwrap();
        self.members[member].wait().unwrap();
    }
}

impl Drop for EtcdCluster {
    fn drop(&mut self) {
        for member in &mut self.members {
            let _ = member.kill();
            let _ = member.wait();
        }
    }
}
