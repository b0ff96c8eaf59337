//! The servers that are measured beside each other. Each is a process of its own, as etcd cannot be anything else.

#![allow(dead_code, reason = "each bench takes what it needs")]

use std::io::{self, Read};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::grpc::{Channel, Put};
use crate::{echo, orlop_etcd};

/// How long a server may take until it answers.
const PATIENCE: Duration = Duration::from_secs(20);

/// Says that this process is to be a server, which one, on which port and with which directory: `echo 2379 /tmp/data`.
const SERVE: &str = "ORLOP_BENCH_SERVE";

/// A server that ends with this value, and its data with it.
pub(crate) struct Server {
    child: Child,
    pub(crate) port: u16,
    _directory: TempDir,
}

/// Is the server that this process was started as, if it was. Does not return then.
pub(crate) fn serve_if_asked() {
    let Ok(what) = std::env::var(SERVE) else {
        return;
    };
    // The bench holds the other end of the pipe, so that no server outlives it, however it ends.
    std::thread::spawn(|| {
        let _ = io::stdin().read(&mut [0]);
        std::process::exit(0);
    });
    let [name, port, directory] = what.splitn(3, ' ').collect::<Vec<_>>()[..] else {
        panic!("{SERVE}={what}");
    };
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port.parse().expect("a port")));
    let runtime = crate::support::runtime();
    runtime.block_on(async {
        match name {
            "echo" => echo::serve(address).await,
            _ => orlop_etcd::serve(address, directory.as_ref()).await,
        }
    });
    std::process::exit(0);
}

impl Server {
    /// An empty server by tonic.
    pub(crate) fn echo() -> io::Result<Self> {
        Self::this_program("echo")
    }

    /// The etcd API in front of the durable store, with its defaults: what `orlop etcd` serves.
    pub(crate) fn orlop() -> io::Result<Self> {
        Self::this_program("orlop")
    }

    fn this_program(name: &str) -> io::Result<Self> {
        let (directory, port) = (tempfile::tempdir()?, free_port()?);
        let data = directory.path().join("data");
        Command::new(std::env::current_exe()?)
            .env(SERVE, format!("{name} {port} {}", data.display()))
            .stdin(Stdio::piped())
            .spawn()
            .map(|child| Self::new(child, port, directory))?
            .ready()
    }

    /// What the etcd on `PATH` says that it is.
    pub(crate) fn etcd_version() -> io::Result<String> {
        let said = Command::new("etcd").arg("--version").output()?.stdout;
        let said = String::from_utf8_lossy(&said);
        Ok(said.lines().next().unwrap_or_default().to_owned())
    }

    /// The etcd on `PATH` with its defaults, so that every batch of commits is synced.
    pub(crate) fn etcd() -> io::Result<Self> {
        let directory = tempfile::tempdir()?;
        let port = free_port()?;
        let client = format!("http://127.0.0.1:{port}");
        let peer = format!("http://127.0.0.1:{}", free_port()?);
        let cluster = format!("default={peer}");
        Command::new("etcd")
            .arg("--data-dir")
            .arg(directory.path().join("data"))
            .args(["--listen-client-urls", &client])
            .args(["--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer])
            .args(["--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &cluster])
            .args(["--log-level", "error"])
            // More than a run writes. The default of 2 GiB would do too, but not by much.
            .args(["--quota-backend-bytes", "8589934592"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map(|child| Self::new(child, port, directory))?
            .ready()
    }

    fn new(child: Child, port: u16, directory: TempDir) -> Self {
        Self {
            child,
            port,
            _directory: directory,
        }
    }

    /// Waits until it answers.
    fn ready(mut self) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let began = Instant::now();
        loop {
            let put = Put {
                key: "/ready".into(),
                ..Put::default()
            };
            let answer = runtime.block_on(async {
                let put = async { Channel::connect(self.port).await?.put(&put).await };
                tokio::time::timeout(Duration::from_secs(2), put).await
            });
            match answer {
                Ok(Ok(())) => return Ok(self),
                Ok(Err(error)) if began.elapsed() > PATIENCE => {
                    return Err(io::Error::other(error));
                }
                Err(error) if began.elapsed() > PATIENCE => return Err(io::Error::other(error)),
                _ => {}
            }
            if let Some(status) = self.child.try_wait()? {
                return Err(io::Error::other(format!("it ended with {status}")));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port of this machine that nobody listens on.
fn free_port() -> io::Result<u16> {
    let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok(socket.local_addr()?.port())
}
