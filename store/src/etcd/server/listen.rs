//! Serving on sockets.

use orlop_core::env::{CancelToken, TaskGroup};
use orlop_wire::Error;
use orlop_wire::listener::{Listener, ListenerLimits, ServerTls};
use tokio::net::{TcpListener, UnixListener};

use super::EtcdServer;
use super::connection::limits;
use super::service::Pages;

fn listener(tls: Option<ServerTls>) -> Listener {
    let mut all = ListenerLimits::default();
    all.connection = limits();
    tls.map_or_else(Listener::plain, Listener::tls).limits(all)
}

impl EtcdServer {
    /// Serves connections until `cancel` is cancelled. Then the server is [closed](Self::close), calls in flight are answered, and all connections
    /// end.
    ///
    /// # Errors
    /// [`Error::Network`] when the socket cannot accept any more.
    pub async fn serve(
        &self,
        socket: TcpListener,
        tls: Option<ServerTls>,
        cancel: &CancelToken,
    ) -> Result<(), Error> {
        let stop = self.stop_with(cancel);
        let server = self.clone();
        let serve = move |io, _, cancel: CancelToken| {
            let server = server.clone();
            async move { server.serve_stream(io, &cancel).await }
        };
        listener(tls)
            .serve_with(socket, &self.inner.env, &stop, serve)
            .await
    }

    /// Serves `/health`, `/version` and `/metrics` alone until `cancel` is cancelled.
    ///
    /// # Errors
    /// [`Error::Network`] when the socket cannot accept any more.
    pub async fn serve_pages(
        &self,
        socket: TcpListener,
        tls: Option<ServerTls>,
        cancel: &CancelToken,
    ) -> Result<(), Error> {
        listener(tls)
            .serve(socket, Pages(self.clone()), &self.inner.env, cancel)
            .await
    }

    /// As [`serve`](Self::serve), on a socket of this machine.
    ///
    /// # Errors
    /// [`Error::Network`] when the socket cannot accept any more.
    pub async fn serve_unix(
        &self,
        socket: UnixListener,
        cancel: &CancelToken,
    ) -> Result<(), Error> {
        let stop = self.stop_with(cancel);
        let tasks = TaskGroup::with_parent(self.inner.env.clone(), &stop);
        let result = loop {
            match stop.run(socket.accept()).await {
                None => break Ok(()),
                Some(Ok((stream, _))) => {
                    let (server, token) = (self.clone(), tasks.token());
                    tasks.spawn("etcd-connection", async move {
                        if let Err(error) = server.serve_stream(stream, &token).await {
                            tracing::debug!(%error, "connection failed");
                        }
                    });
                }
                Some(Err(source)) => {
                    let what = "accept".to_owned();
                    break Err(Error::Network { what, source });
                }
            }
        };
        drop(socket);
        tasks.shutdown().await;
        result
    }

    /// A token that is cancelled with another one, and closes the server first: streams that never end by themselves must not be waited for.
    fn stop_with(&self, cancel: &CancelToken) -> CancelToken {
        let (stop, server, cancel) = (CancelToken::new(), self.clone(), cancel.clone());
        let own = stop.clone();
        self.inner.env.spawn("etcd-stop", async move {
            cancel.cancelled().await;
            server.close();
            own.cancel();
        });
        stop
    }
}
