//! One connection.
//!
//! All calls of an HTTP/2 connection are done by the task that reads and writes it. So a call costs no task and no wake-up of another thread, what is
//! answered together is written together, and the calls end with their connection.

mod authority;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::{BoxFuture, Either, select};
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use orlop_core::env::CancelToken;
use orlop_wire::Error;
use orlop_wire::listener::{ConnectionLimits, PeerInfo, serve_connection};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tower_service::Service;

use self::authority::Lenient;
use super::EtcdServer;

/// How many calls there may be at a time on one connection. etcd sets no limit, and its clients put all they have on one connection.
const STREAMS: u32 = 1 << 16;

/// How many rounds a connection may have before other tasks have their turn.
const ROUNDS: usize = 32;

/// Which first bytes mean HTTP/2.
const PREFACE: &[u8; 3] = b"PRI";

/// The limits of a connection.
pub(super) fn limits() -> ConnectionLimits {
    let mut limits = ConnectionLimits::default();
    limits.max_concurrent_streams = STREAMS;
    limits
}

impl EtcdServer {
    /// Serves one connection, of whatever kind, until it ends or `cancel` is cancelled.
    ///
    /// # Errors
    /// [`Error::Http`] for a client that does not speak HTTP, or a connection that broke.
    pub async fn serve_stream<IO>(&self, io: IO, cancel: &CancelToken) -> Result<(), Error>
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let limits = limits();
        let first = async {
            let mut io = io;
            let mut first = [0; 3];
            io.read_exact(&mut first).await.map(|_| (first, io))
        };
        let first = self.inner.env.timeout(limits.header_read_timeout, first);
        let (first, io) = match cancel.run(first).await {
            // A client that has said nothing is not waited for.
            None => return Ok(()),
            Some(Ok(Ok(read))) => read,
            // It has gone without a word, as probes do, or never had one.
            Some(Ok(Err(_)) | Err(_)) => return Ok(()),
        };
        if first != *PREFACE {
            let io = Lenient::as_it_is(&first, io);
            let (peer, env) = (PeerInfo::default(), &self.inner.env);
            return serve_connection(io, peer, self.clone(), &limits, env, cancel).await;
        }
        self.http2(Lenient::new(&first, io), &limits, cancel).await
    }

    async fn http2<IO>(
        &self,
        io: IO,
        limits: &ConnectionLimits,
        cancel: &CancelToken,
    ) -> Result<(), Error>
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let calls = Calls::default();
        let mut builder = http2::Builder::new(calls.clone());
        builder
            .timer(TokioTimer::new())
            .keep_alive_interval(limits.keep_alive_interval)
            .keep_alive_timeout(limits.keep_alive_timeout)
            .max_concurrent_streams(limits.max_concurrent_streams)
            .max_header_list_size(64 * 1024)
            .initial_stream_window_size(1024 * 1024)
            .initial_connection_window_size(16 * 1024 * 1024)
            .max_send_buf_size(256 * 1024);
        let connection = builder.serve_connection(TokioIo::new(io), Adapter(self.clone()));
        let mut driver = Driver {
            connection,
            calls,
            running: FuturesUnordered::new(),
        };
        let early = match select(&mut driver, cancel.cancelled()).await {
            Either::Left((result, _)) => Some(result),
            Either::Right(((), _)) => None,
        };
        let result = match early {
            Some(result) => result,
            None => {
                Pin::new(&mut driver.connection).graceful_shutdown();
                let left = self.inner.env.timeout(limits.drain_timeout, driver);
                left.await.unwrap_or(Ok(()))
            }
        };
        result.map_err(|error| Error::Http(error.to_string()))
    }
}

/// Our service as hyper's.
struct Adapter(EtcdServer);

impl hyper::service::Service<Request<Incoming>> for Adapter {
    type Response = <EtcdServer as Service<Request<Incoming>>>::Response;
    type Error = <EtcdServer as Service<Request<Incoming>>>::Error;
    type Future = <EtcdServer as Service<Request<Incoming>>>::Future;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        self.0.clone().call(request)
    }
}

/// The calls that have just come.
#[derive(Clone, Default)]
struct Calls(Arc<Mutex<Vec<BoxFuture<'static, ()>>>>);

impl<F> hyper::rt::Executor<F> for Calls
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, call: F) {
        self.0.lock().push(call.boxed());
    }
}

/// A connection and its calls.
struct Driver<C> {
    connection: C,
    calls: Calls,
    running: FuturesUnordered<BoxFuture<'static, ()>>,
}

impl<C: Future + Unpin> Future for Driver<C> {
    type Output = C::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<C::Output> {
        let this = &mut *self;
        for _ in 0..ROUNDS {
            while let Poll::Ready(Some(())) = this.running.poll_next_unpin(cx) {}
            if let Poll::Ready(ended) = Pin::new(&mut this.connection).poll(cx) {
                return Poll::Ready(ended);
            }
            let new = std::mem::take(&mut *this.calls.0.lock());
            if new.is_empty() {
                return Poll::Pending;
            }
            this.running.extend(new);
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}
