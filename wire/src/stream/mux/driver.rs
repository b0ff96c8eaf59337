//! The task that moves frames between a cable and the streams.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{Sink, Stream};
use orlop_core::env::{Env, Moment};

use super::Options;
use super::frame::Frame;
use super::state::Shared;

/// A cable: frames in and out.
pub(crate) trait Transport:
    Stream<Item = io::Result<Frame>> + Sink<Frame, Error = io::Error> + Unpin + Send + 'static
{
}

impl<T> Transport for T where
    T: Stream<Item = io::Result<Frame>> + Sink<Frame, Error = io::Error> + Unpin + Send + 'static
{
}

/// How many frames are moved before other tasks have their turn.
const BUDGET: usize = 64;

/// How long a peer may take to read the rest after nobody holds the connection any more.
const CLOSE_LIMIT: Duration = Duration::from_secs(10);

/// How long is waited for the peer's own end after that: a socket that is closed with unread bytes in it takes back what was sent.
const LINGER: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Running,
    /// All handles are gone: what is left is sent.
    Draining,
    /// The last frame is under way.
    Closing,
    /// The cable is closed on our side.
    Lingering,
}

pub(super) struct Driver<T> {
    transport: T,
    shared: Arc<Shared>,
    env: Env,
    options: Options,
    /// A frame that its stream has no room for: nothing is read before it has.
    held: Option<Frame>,
    phase: Phase,
    active: Moment,
    pinged: Moment,
    closing_since: Moment,
    timer: Option<(Moment, BoxFuture<'static, ()>)>,
}

impl<T: Transport> Driver<T> {
    pub(super) fn new(transport: T, shared: Arc<Shared>, env: Env, options: Options) -> Self {
        let now = env.now();
        Self {
            transport,
            shared,
            env,
            options,
            held: None,
            phase: Phase::Running,
            active: now,
            pinged: now,
            closing_since: now,
            timer: None,
        }
    }

    /// The next moment at which something is due.
    fn deadline(&self) -> Option<Moment> {
        match self.phase {
            Phase::Running => {
                let idle = self.options.idle_timeout.map(|limit| self.active + limit);
                let ping = self.options.ping_period.map(|period| self.pinged + period);
                [idle, ping].into_iter().flatten().min()
            }
            Phase::Draining | Phase::Closing => Some(self.closing_since + CLOSE_LIMIT),
            Phase::Lingering => Some(self.closing_since + LINGER),
        }
    }

    /// Does what is due.
    ///
    /// # Errors
    /// The connection is over.
    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Result<(), io::ErrorKind> {
        loop {
            let Some(due) = self.deadline() else {
                self.timer = None;
                return Ok(());
            };
            // A timer that fires too early only looks again: deadlines move with every frame.
            if self.timer.as_ref().is_none_or(|(at, _)| *at > due) {
                self.timer = Some((due, self.env.sleep_until(due)));
            }
            let Some((_, timer)) = &mut self.timer else {
                return Ok(());
            };
            if timer.as_mut().poll(cx).is_pending() {
                return Ok(());
            }
            self.timer = None;
            let now = self.env.now();
            if now < due {
                continue;
            }
            if self.phase != Phase::Running {
                return Err(io::ErrorKind::TimedOut);
            }
            if let Some(limit) = self.options.idle_timeout
                && now >= self.active + limit
            {
                return Err(io::ErrorKind::TimedOut);
            }
            if let Some(period) = self.options.ping_period
                && now >= self.pinged + period
            {
                self.pinged = now;
                self.shared.0.lock().ping();
            }
        }
    }

    /// Gives frames to the cable as long as it takes them. Whether some were.
    fn poll_send(&mut self, cx: &mut Context<'_>, budget: &mut usize) -> io::Result<bool> {
        let mut sent = false;
        while *budget > 0 {
            match Pin::new(&mut self.transport).poll_ready(cx) {
                Poll::Pending => return Ok(sent),
                Poll::Ready(ready) => ready?,
            }
            let Some(frame) = self.shared.0.lock().next_frame() else {
                break;
            };
            *budget -= 1;
            sent = true;
            self.active = self.env.now();
            Pin::new(&mut self.transport).start_send(frame)?;
        }
        if let Poll::Ready(flushed) = Pin::new(&mut self.transport).poll_flush(cx) {
            flushed?;
        }
        Ok(sent)
    }

    /// Takes frames from the cable as long as there is room for them.
    fn poll_receive(&mut self, cx: &mut Context<'_>, budget: &mut usize) -> io::Result<bool> {
        let mut received = false;
        while *budget > 0 {
            let frame = match self.held.take() {
                Some(frame) => frame,
                None => match Pin::new(&mut self.transport).poll_next(cx) {
                    Poll::Pending => return Ok(received),
                    Poll::Ready(None) => return Err(io::ErrorKind::UnexpectedEof.into()),
                    Poll::Ready(Some(frame)) => {
                        self.active = self.env.now();
                        frame?
                    }
                },
            };
            if self.phase == Phase::Lingering {
                *budget -= 1;
                received = true;
                continue;
            }
            let mut state = self.shared.0.lock();
            if !state.has_room(&frame) {
                // Whoever makes room wakes this task.
                self.held = Some(frame);
                return Ok(received);
            }
            state.receive(frame);
            *budget -= 1;
            received = true;
        }
        Ok(received)
    }

    fn poll_phase(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        match self.phase {
            Phase::Running => {
                let mut state = self.shared.0.lock();
                if state.is_abandoned() || state.close_now {
                    drop(state);
                    self.phase = Phase::Draining;
                    self.closing_since = self.env.now();
                    self.timer = None;
                    return Ok(true);
                }
                state.driver = Some(cx.waker().clone());
                Ok(false)
            }
            Phase::Draining => {
                let mut state = self.shared.0.lock();
                state.driver = Some(cx.waker().clone());
                if !state.is_drained() {
                    return Ok(false);
                }
                state.say_goodbye();
                drop(state);
                self.phase = Phase::Closing;
                Ok(true)
            }
            Phase::Closing => {
                let mut state = self.shared.0.lock();
                state.driver = Some(cx.waker().clone());
                if !state.is_drained() {
                    return Ok(false);
                }
                drop(state);
                match Pin::new(&mut self.transport).poll_close(cx) {
                    Poll::Pending => Ok(false),
                    Poll::Ready(closed) => {
                        closed?;
                        self.phase = Phase::Lingering;
                        self.closing_since = self.env.now();
                        self.timer = None;
                        self.held = None;
                        // Those that hold handles of what was closed at once are told now.
                        self.shared.0.lock().end(io::ErrorKind::NotConnected);
                        Ok(true)
                    }
                }
            }
            Phase::Lingering => Ok(false),
        }
    }

    /// One round. Whether anything moved.
    fn turn(&mut self, cx: &mut Context<'_>, budget: &mut usize) -> io::Result<bool> {
        // The waker is registered before it is looked whether there is something to do, so that nothing is missed.
        let moved = self.poll_phase(cx)?;
        let sent = self.phase != Phase::Lingering && self.poll_send(cx, budget)?;
        let received = self.poll_receive(cx, budget)?;
        Ok(moved || sent || received)
    }
}

impl<T: Transport> Future for Driver<T> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let mut budget = BUDGET;
        let ended = loop {
            if let Err(kind) = this.poll_timer(cx) {
                break kind;
            }
            match this.turn(cx, &mut budget) {
                Err(error) => break error.kind(),
                Ok(false) => return Poll::Pending,
                Ok(true) if budget == 0 => {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Ok(true) => {}
            }
        };
        this.shared.0.lock().end(ended);
        Poll::Ready(())
    }
}

impl<T> Drop for Driver<T> {
    /// A task that is dropped with its environment leaves nobody waiting.
    fn drop(&mut self) {
        self.shared.0.lock().end(io::ErrorKind::ConnectionAborted);
    }
}
