//! Many streams over one cable.
//!
//! Every stream has bounded buffers. The cable's framing has no windows (SPDY's peers here ignore them, WebSockets have none), so a
//! stream that is not read holds up the others of its connection once its buffer is full, as it does with every other implementation;
//! a stream whose [`ReceiveHalf`] is dropped holds up nothing.
//!
//! One task drives a connection. It ends when the peer has gone, and when nobody holds the [`Connection`] or one of its streams any
//! more: then what was written is sent first, and the peer is told.

mod driver;
mod frame;
mod half;
mod state;

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use orlop_core::env::Env;

use self::driver::Driver;
pub(crate) use self::driver::Transport;
pub(crate) use self::frame::Frame;
pub use self::frame::{Headers, ResetCode};
pub use self::half::{ReceiveHalf, SendHalf, Stream};
use self::state::Shared;

/// Which end of a connection this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The one that asked for the connection. Its streams have odd numbers.
    Client,
    /// The one that was asked. Its streams have even numbers.
    Server,
}

/// The limits of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Options {
    /// How many bytes of a stream may be received and not read yet, before nothing more is read from the cable. One frame more may come.
    pub receive_buffer: usize,
    /// How many bytes of a stream may wait to be sent, before who writes has to wait.
    pub send_buffer: usize,
    /// How many streams there may be at a time.
    pub max_streams: usize,
    /// After how long without any frame, either way, the connection is given up. `None` for never.
    pub idle_timeout: Option<Duration>,
    /// How often the peer is asked whether it is there, which keeps what lies between from giving the connection up. `None` for never.
    pub ping_period: Option<Duration>,
    /// How long a peer may take to take a stream.
    pub open_timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            receive_buffer: 256 * 1024,
            send_buffer: 128 * 1024,
            max_streams: 256,
            idle_timeout: None,
            ping_period: None,
            open_timeout: Duration::from_secs(30),
        }
    }
}

impl Options {
    /// With an idle timeout; none for zero.
    #[must_use]
    pub fn idle_timeout(mut self, limit: Duration) -> Self {
        self.idle_timeout = (!limit.is_zero()).then_some(limit);
        self
    }

    /// With pings; none for zero.
    #[must_use]
    pub fn ping_period(mut self, period: Duration) -> Self {
        self.ping_period = (!period.is_zero()).then_some(period);
        self
    }
}

/// A connection that carries streams. Clones are handles of the same one.
pub struct Connection {
    shared: Arc<Shared>,
    env: Env,
    options: Options,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").finish_non_exhaustive()
    }
}

impl Clone for Connection {
    fn clone(&self) -> Self {
        self.shared.0.lock().connections += 1;
        Self {
            shared: self.shared.clone(),
            env: self.env.clone(),
            options: self.options.clone(),
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let mut state = self.shared.0.lock();
        state.connections -= 1;
        if state.connections == 0 {
            // Nobody will take these.
            for (id, _) in std::mem::take(&mut state.arrived) {
                if let Some(slot) = state.slots.get_mut(&id) {
                    (slot.deaf, slot.mute) = (true, true);
                }
                state.tidy(id);
            }
        }
        state.wake_driver();
    }
}

impl Connection {
    /// Starts a connection over a cable, with streams that need no opening.
    pub(crate) fn start(
        transport: impl Transport,
        role: Role,
        options: Options,
        env: &Env,
        adopted: &[u32],
    ) -> (Self, Vec<Stream>) {
        let shared = Shared::new(role, options.clone());
        {
            let mut state = shared.0.lock();
            state.connections = 1;
            for id in adopted {
                state.adopt(*id);
            }
        }
        let streams = adopted
            .iter()
            .map(|id| Stream::new(&shared, *id, Headers::new(), options.send_buffer))
            .collect();
        // It ends with its last handle, which is its owner.
        env.spawn(
            "stream connection",
            Driver::new(transport, shared.clone(), env.clone(), options.clone()),
        );
        let connection = Self {
            shared,
            env: env.clone(),
            options,
        };
        (connection, streams)
    }

    /// Opens a stream and waits until the peer has taken it. Returns what the peer replied, too.
    ///
    /// # Errors
    /// The peer refused it or took too long; the connection is over; there are too many streams.
    pub async fn open(&self, headers: Headers) -> io::Result<Stream> {
        let id = self.shared.0.lock().open(&headers)?;
        let stream = Stream::new(&self.shared, id, headers, self.options.send_buffer);
        match self
            .env
            .timeout(self.options.open_timeout, stream.replied())
            .await
        {
            Ok(replied) => replied.map(|_| stream),
            Err(_) => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "the peer did not take the stream",
            )),
        }
    }

    /// The next stream that the peer opens; `None` when there will be none. It is to be [replied](Stream::reply) to; one that is dropped
    /// without is refused.
    pub async fn accept(&self) -> Option<Stream> {
        poll_fn(|cx| {
            let mut state = self.shared.0.lock();
            if let Some((id, headers)) = state.arrived.pop_front() {
                drop(state);
                return Poll::Ready(Some(Stream::new(
                    &self.shared,
                    id,
                    headers,
                    self.options.send_buffer,
                )));
            }
            if state.ended.is_some() || state.gone_away {
                return Poll::Ready(None);
            }
            if !state.acceptors.iter().any(|own| own.will_wake(cx.waker())) {
                state.acceptors.push(cx.waker().clone());
            }
            Poll::Pending
        })
        .await
    }

    /// Asks the peer whether it is there, and waits for the answer.
    ///
    /// # Errors
    /// The connection is over.
    pub async fn ping(&self) -> io::Result<()> {
        /// Forgets a question that nobody waits for any more.
        struct Asked<'a>(&'a Shared, u32);
        impl Drop for Asked<'_> {
            fn drop(&mut self) {
                self.0.0.lock().forget_pong(self.1);
            }
        }
        let asked = {
            let mut state = self.shared.0.lock();
            if let Some(kind) = state.ended {
                return Err(kind.into());
            }
            let id = state.ping();
            state.expect_pong(id);
            Asked(&self.shared, id)
        };
        poll_fn(|cx| {
            let mut state = self.shared.0.lock();
            if let Some(kind) = state.ended {
                return Poll::Ready(Err(kind.into()));
            }
            if state.poll_pong(asked.1, cx.waker()) {
                Poll::Ready(Ok(()))
            } else {
                Poll::Pending
            }
        })
        .await
    }

    /// Ends the connection, whoever holds its streams: what was written is sent, then the peer is told.
    pub fn close(&self) {
        let mut state = self.shared.0.lock();
        state.close_now = true;
        state.wake_driver();
    }

    /// Waits until the connection is over: by the peer, by an error, by [`close`](Self::close).
    pub async fn closed(&self) {
        poll_fn(|cx| {
            let mut state = self.shared.0.lock();
            if state.ended.is_some() {
                return Poll::Ready(());
            }
            // A waker that is there already need not be there twice.
            if !state.end_wakers.iter().any(|own| own.will_wake(cx.waker())) {
                state.end_wakers.push(cx.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }

    /// Whether the connection is over.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.shared.0.lock().ended.is_some()
    }
}
