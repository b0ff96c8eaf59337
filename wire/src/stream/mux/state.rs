//! What the handles of a connection and the task that drives it share.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::task::Waker;

use bytes::Bytes;
use parking_lot::Mutex;

use super::frame::{Frame, Headers, ResetCode};
use super::{Options, Role};

/// The largest piece of content that is put into one frame.
const MAX_DATA: usize = 32 * 1024;

/// How many answers to pings, resets and the like may wait for a peer that does not read. Nothing more is read from it then.
const MAX_CONTROL: usize = 1024;

/// How the other side ended a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// It said that it has sent all.
    Finished,
    /// It ended the stream.
    Reset(ResetCode),
    /// The connection ended first.
    Broken(io::ErrorKind),
}

/// How far our own side has come in ending a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fin {
    Open,
    Wanted,
    Sent,
}

/// One stream.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) inbox: VecDeque<Bytes>,
    pub(super) inbox_len: usize,
    pub(super) end: Option<End>,
    pub(super) reader: Option<Waker>,
    /// The receiving half was dropped: what comes is thrown away.
    pub(super) deaf: bool,
    pub(super) outbox: VecDeque<Bytes>,
    pub(super) outbox_len: usize,
    pub(super) fin: Fin,
    pub(super) writer: Option<Waker>,
    /// The sending half was dropped.
    pub(super) mute: bool,
    /// Whether the stream was replied to: content before that is thrown away by some peers, so none is sent.
    pub(super) open: bool,
    pub(super) opener: Option<Waker>,
    pub(super) reply: Headers,
    /// Whether it stands in the list of those that have something to send.
    queued: bool,
}

impl Slot {
    fn new(open: bool) -> Self {
        Self {
            inbox: VecDeque::new(),
            inbox_len: 0,
            end: None,
            reader: None,
            deaf: false,
            outbox: VecDeque::new(),
            outbox_len: 0,
            fin: Fin::Open,
            writer: None,
            mute: false,
            open,
            opener: None,
            reply: Headers::new(),
            queued: false,
        }
    }

    fn has_something_to_send(&self) -> bool {
        self.open && (!self.outbox.is_empty() || self.fin == Fin::Wanted)
    }

    /// Ends both directions.
    fn close(&mut self, end: End) {
        self.end.get_or_insert(end);
        self.fin = Fin::Sent;
        self.outbox.clear();
        self.outbox_len = 0;
        self.wake();
    }

    fn wake(&mut self) {
        for waker in [self.reader.take(), self.writer.take(), self.opener.take()]
            .into_iter()
            .flatten()
        {
            waker.wake();
        }
    }
}

/// A connection's state.
#[derive(Debug)]
pub(super) struct State {
    role: Role,
    options: Options,
    pub(super) slots: BTreeMap<u32, Slot>,
    control: VecDeque<Frame>,
    ready: VecDeque<u32>,
    next_id: u32,
    last_received: u32,
    /// Streams that the peer opened and nobody has taken.
    pub(super) arrived: VecDeque<(u32, Headers)>,
    pub(super) acceptors: Vec<Waker>,
    next_ping: u32,
    pings: BTreeMap<u32, Option<Waker>>,
    pub(super) driver: Option<Waker>,
    /// Handles of the connection itself.
    pub(super) connections: usize,
    /// Halves of streams.
    pub(super) halves: usize,
    pub(super) gone_away: bool,
    pub(super) close_now: bool,
    pub(super) ended: Option<io::ErrorKind>,
    pub(super) end_wakers: Vec<Waker>,
}

/// Shared by all handles.
#[derive(Debug)]
pub(super) struct Shared(pub(super) Mutex<State>);

impl Shared {
    pub(super) fn new(role: Role, options: Options) -> Arc<Self> {
        let first = match role {
            Role::Client => 1,
            Role::Server => 2,
        };
        Arc::new(Self(Mutex::new(State {
            role,
            options,
            slots: BTreeMap::new(),
            control: VecDeque::new(),
            ready: VecDeque::new(),
            next_id: first,
            last_received: 0,
            arrived: VecDeque::new(),
            acceptors: Vec::new(),
            next_ping: first,
            pings: BTreeMap::new(),
            driver: None,
            connections: 0,
            halves: 0,
            gone_away: false,
            close_now: false,
            ended: None,
            end_wakers: Vec::new(),
        })))
    }
}

impl State {
    pub(super) fn wake_driver(&mut self) {
        if let Some(waker) = self.driver.take() {
            waker.wake();
        }
    }

    fn of_peer(&self, id: u32) -> bool {
        let odd = id % 2 == 1;
        odd == (self.role == Role::Server)
    }

    /// Whether nothing is held by anybody, so that the connection is to be closed when all was sent.
    pub(super) fn is_abandoned(&self) -> bool {
        self.connections == 0 && self.halves == 0
    }

    /// Whether all that was to be sent was given to the cable.
    pub(super) fn is_drained(&self) -> bool {
        self.control.is_empty() && !self.slots.values().any(Slot::has_something_to_send)
    }

    // Our side.

    /// Puts a stream in place that needs no opening.
    pub(super) fn adopt(&mut self, id: u32) {
        self.slots.insert(id, Slot::new(true));
    }

    pub(super) fn open(&mut self, headers: &Headers) -> io::Result<u32> {
        if let Some(kind) = self.ended {
            return Err(kind.into());
        }
        if self.gone_away || self.next_id > 0x7fff_ffff {
            return Err(io::Error::other("the connection takes no more streams"));
        }
        if self.slots.len() >= self.options.max_streams {
            return Err(io::Error::other("too many streams"));
        }
        let id = self.next_id;
        self.next_id += 2;
        self.slots.insert(id, Slot::new(false));
        self.control.push_back(Frame::Open {
            id,
            headers: headers.clone(),
            fin: false,
            unidirectional: false,
        });
        self.wake_driver();
        Ok(id)
    }

    pub(super) fn reply(&mut self, id: u32, headers: Headers, fin: bool) {
        let Some(slot) = self.slots.get_mut(&id) else {
            return;
        };
        if slot.open || slot.fin == Fin::Sent {
            return;
        }
        slot.open = true;
        if fin {
            slot.fin = Fin::Sent;
        }
        self.control.push_back(Frame::Reply { id, headers, fin });
        self.enqueue(id);
    }

    /// Sees to it that a stream's content is sent.
    pub(super) fn enqueue(&mut self, id: u32) {
        if let Some(slot) = self.slots.get_mut(&id)
            && !slot.queued
            && slot.has_something_to_send()
        {
            slot.queued = true;
            self.ready.push_back(id);
        }
        self.wake_driver();
    }

    pub(super) fn reset(&mut self, id: u32, code: ResetCode) {
        if let Some(slot) = self.slots.get_mut(&id) {
            let over = slot.end.is_some() && slot.fin == Fin::Sent;
            slot.close(End::Reset(code));
            if !over {
                self.control.push_back(Frame::Reset { id, code });
            }
        }
        self.tidy(id);
        self.wake_driver();
    }

    /// Forgets a stream that nobody holds, once what was written to it is sent.
    pub(super) fn tidy(&mut self, id: u32) {
        let Some(slot) = self.slots.get_mut(&id) else {
            return;
        };
        if !(slot.deaf && slot.mute) {
            return;
        }
        if !slot.open && slot.end.is_none() {
            // It was never taken: by us, or by the peer that we no longer wait for.
            let code = if self.of_peer(id) {
                ResetCode::REFUSED
            } else {
                ResetCode::CANCEL
            };
            self.control.push_back(Frame::Reset { id, code });
            self.slots.remove(&id);
        } else if slot.fin == Fin::Sent {
            if slot.end.is_none() {
                self.control.push_back(Frame::Reset {
                    id,
                    code: ResetCode::CANCEL,
                });
            }
            self.slots.remove(&id);
        }
        self.wake_driver();
    }

    pub(super) fn ping(&mut self) -> u32 {
        let id = self.next_ping;
        self.next_ping = if id > 0x7fff_fffd { id % 2 + 2 } else { id + 2 };
        self.control.push_back(Frame::Ping(id));
        self.wake_driver();
        id
    }

    pub(super) fn expect_pong(&mut self, id: u32) {
        self.pings.insert(id, None);
    }

    /// Whether the answer has come; else who is told.
    pub(super) fn poll_pong(&mut self, id: u32, waker: &Waker) -> bool {
        match self.pings.get_mut(&id) {
            None => true,
            Some(waiting) => {
                *waiting = Some(waker.clone());
                false
            }
        }
    }

    pub(super) fn forget_pong(&mut self, id: u32) {
        self.pings.remove(&id);
    }

    pub(super) fn say_goodbye(&mut self) {
        self.control.push_back(Frame::GoAway {
            last: self.last_received,
        });
    }

    /// The next frame to send. Control frames first, then the streams in turn.
    pub(super) fn next_frame(&mut self) -> Option<Frame> {
        if let Some(frame) = self.control.pop_front() {
            return Some(frame);
        }
        while let Some(id) = self.ready.pop_front() {
            let Some(slot) = self.slots.get_mut(&id) else {
                continue;
            };
            slot.queued = false;
            if !slot.has_something_to_send() {
                continue;
            }
            let mut data = slot.outbox.pop_front().unwrap_or_default();
            if data.len() > MAX_DATA {
                slot.outbox.push_front(data.split_off(MAX_DATA));
            }
            slot.outbox_len -= data.len();
            let fin = slot.outbox.is_empty() && slot.fin == Fin::Wanted;
            if fin {
                slot.fin = Fin::Sent;
            }
            if slot.outbox_len < self.options.send_buffer
                && let Some(waker) = slot.writer.take()
            {
                waker.wake();
            }
            if slot.has_something_to_send() {
                slot.queued = true;
                self.ready.push_back(id);
            } else if fin {
                self.tidy(id);
            }
            return Some(Frame::Data { id, data, fin });
        }
        None
    }

    // The peer's side.

    /// Whether a frame's content has room in its stream.
    pub(super) fn has_room(&self, frame: &Frame) -> bool {
        match frame {
            Frame::Data { id, .. } => self
                .slots
                .get(id)
                .is_none_or(|slot| slot.deaf || slot.inbox_len < self.options.receive_buffer),
            _ => self.control.len() < MAX_CONTROL,
        }
    }

    pub(super) fn receive(&mut self, frame: Frame) {
        match frame {
            Frame::Open {
                id,
                headers,
                fin,
                unidirectional,
            } => self.opened(id, headers, fin, unidirectional),
            Frame::Reply { id, headers, fin } => {
                if let Some(slot) = self.slots.get_mut(&id)
                    && !slot.open
                {
                    slot.open = true;
                    slot.reply = headers;
                    if fin {
                        slot.end.get_or_insert(End::Finished);
                    }
                    slot.wake();
                    self.enqueue(id);
                }
            }
            Frame::Data { id, data, fin } => {
                if let Some(slot) = self.slots.get_mut(&id)
                    && slot.end.is_none()
                {
                    if !data.is_empty() && !slot.deaf {
                        slot.inbox_len += data.len();
                        slot.inbox.push_back(data);
                    }
                    if fin {
                        slot.end = Some(End::Finished);
                    }
                    if let Some(waker) = slot.reader.take() {
                        waker.wake();
                    }
                    if fin {
                        self.tidy(id);
                    }
                }
            }
            Frame::Reset { id, code } => {
                if let Some(slot) = self.slots.get_mut(&id) {
                    slot.close(End::Reset(code));
                    self.tidy(id);
                }
            }
            Frame::Ping(id) if self.of_peer(id) => self.control.push_back(Frame::Ping(id)),
            Frame::Ping(id) => {
                if let Some(Some(waker)) = self.pings.remove(&id) {
                    waker.wake();
                }
            }
            Frame::GoAway { .. } => {
                self.gone_away = true;
                self.wake_acceptors();
            }
            Frame::Alive => {}
        }
    }

    fn opened(&mut self, id: u32, headers: Headers, fin: bool, unidirectional: bool) {
        let refusal = if !self.of_peer(id) || id <= self.last_received || id > 0x7fff_ffff {
            Some(ResetCode::PROTOCOL_ERROR)
        } else if self.connections == 0 || self.slots.len() >= self.options.max_streams {
            Some(ResetCode::REFUSED)
        } else {
            None
        };
        if let Some(code) = refusal {
            self.control.push_back(Frame::Reset { id, code });
            return;
        }
        self.last_received = id;
        let mut slot = Slot::new(false);
        if fin {
            slot.end = Some(End::Finished);
        }
        if unidirectional {
            slot.fin = Fin::Sent;
        }
        self.slots.insert(id, slot);
        self.arrived.push_back((id, headers));
        self.wake_acceptors();
    }

    fn wake_acceptors(&mut self) {
        for waker in self.acceptors.drain(..) {
            waker.wake();
        }
    }

    /// The connection is over: `kind` is how. A peer that took its leave has ended its streams by that.
    pub(super) fn end(&mut self, kind: io::ErrorKind) {
        if self.ended.is_some() {
            return;
        }
        self.ended = Some(kind);
        let end = if self.gone_away && kind == io::ErrorKind::UnexpectedEof {
            End::Finished
        } else {
            End::Broken(kind)
        };
        for slot in self.slots.values_mut() {
            slot.close(end);
        }
        self.slots.retain(|_, slot| !(slot.deaf && slot.mute));
        self.control.clear();
        self.ready.clear();
        self.arrived.clear();
        self.wake_acceptors();
        for waker in std::mem::take(&mut self.pings).into_values().flatten() {
            waker.wake();
        }
        for waker in self.end_wakers.drain(..) {
            waker.wake();
        }
    }
}
