//! A relay between a client and etcd that can be cut, or that swallows answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use orlop_core::env::{CancelToken, Env, TaskGroup};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener};

/// A relay to one address. It ends with this.
#[derive(Debug)]
pub(crate) struct Relay {
    port: u16,
    shared: Arc<Shared>,
    _tasks: TaskGroup,
}

#[derive(Debug)]
struct Shared {
    /// Cancelled when the connections of the moment are cut.
    era: Mutex<CancelToken>,
    cut: AtomicBool,
    mute: AtomicBool,
}

impl Relay {
    pub(crate) async fn to(upstream: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("its address").port();
        let env = Env::tokio();
        let tasks = TaskGroup::new(env.clone());
        let shared = Arc::new(Shared {
            era: Mutex::new(CancelToken::new()),
            cut: AtomicBool::new(false),
            mute: AtomicBool::new(false),
        });
        let own = shared.clone();
        tasks.spawn_until_cancelled("relay", async move {
            while let Ok((client, _)) = listener.accept().await {
                let (shared, era) = (own.clone(), own.era.lock().clone());
                if shared.cut.load(Ordering::SeqCst) {
                    continue;
                }
                let upstream = upstream.clone();
                env.spawn("relay", async move {
                    era.run(relay(client, upstream, &shared)).await;
                });
            }
        });
        Self {
            port,
            shared,
            _tasks: tasks,
        }
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Cuts all connections, and every new one until it is mended.
    pub(crate) fn cut(&self) {
        self.shared.cut.store(true, Ordering::SeqCst);
        let mut era = self.shared.era.lock();
        era.cancel();
        *era = CancelToken::new();
    }

    pub(crate) fn mend(&self) {
        self.shared.cut.store(false, Ordering::SeqCst);
    }

    /// Whether answers are swallowed.
    pub(crate) fn mute(&self, mute: bool) {
        self.shared.mute.store(mute, Ordering::SeqCst);
    }
}

/// A relay from a Unix socket to one address, for as long as the group lives.
pub(crate) fn relay_unix(path: &std::path::Path, upstream: String, tasks: &TaskGroup) {
    let listener = UnixListener::bind(path).expect("a socket");
    let (env, token) = (tasks.env().clone(), tasks.token());
    tasks.spawn_until_cancelled("relay", async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let (upstream, token) = (upstream.clone(), token.clone());
            env.spawn("relay", async move {
                if let Ok(mut server) = TcpStream::connect(upstream).await {
                    let both = tokio::io::copy_bidirectional(&mut client, &mut server);
                    token.run(both).await;
                }
            });
        }
    });
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.cut();
    }
}

async fn relay(client: TcpStream, upstream: String, shared: &Shared) {
    let Ok(server) = TcpStream::connect(upstream).await else {
        return;
    };
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let never = AtomicBool::new(false);
    let there = std::pin::pin!(pump(from_client, to_server, &never));
    let back = std::pin::pin!(pump(from_server, to_client, &shared.mute));
    futures::future::select(there, back).await;
}

async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mute: &AtomicBool,
) {
    let mut buffer = vec![0; 16 << 10];
    while let Ok(read) = from.read(&mut buffer).await {
        if read == 0 {
            return;
        }
        if !mute.load(Ordering::SeqCst) && to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}
