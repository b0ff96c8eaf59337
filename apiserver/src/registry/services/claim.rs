//! What has been given out, and what is being given out by a write under way.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;

use parking_lot::Mutex;

#[derive(Debug, Default)]
pub(super) struct Taken {
    pub(super) addresses: BTreeSet<Ipv4Addr>,
    pub(super) ports: BTreeSet<u16>,
    /// What writes of unknown outcome gave or took back: still taken, until a look at the Services says whose it is.
    pub(super) doubtful: Lots,
    /// The same from before the last look: a write that is as old as that has happened, or never will.
    pub(super) doubtful_before: Lots,
}

/// Some addresses and ports.
#[derive(Debug, Default)]
pub(super) struct Lots {
    pub(super) addresses: Vec<Ipv4Addr>,
    pub(super) ports: Vec<u16>,
}

impl Taken {
    pub(super) fn release(&mut self, lots: &Lots) {
        for address in &lots.addresses {
            self.addresses.remove(address);
        }
        for port in &lots.ports {
            self.ports.remove(port);
        }
    }
}

/// What a Service was given, until its write is known to have succeeded: given back when dropped before the write began. When dropped
/// while it goes on (the request is cancelled, the store does not answer), it is in doubt.
#[must_use]
pub(crate) struct Claim {
    pub(super) taken: Arc<Mutex<Taken>>,
    pub(super) given: Lots,
    /// What goes back when the write succeeds.
    pub(super) released: Lots,
    pub(super) writing: bool,
}

impl Claim {
    /// The write begins: from here on, nobody knows how it ends until it has.
    pub(in crate::registry) fn begin_write(&mut self) {
        self.writing = true;
    }

    /// The write was refused: nothing has changed.
    pub(in crate::registry) fn refused(mut self) {
        self.writing = false;
    }

    /// The write succeeded.
    pub(in crate::registry) fn keep(mut self) {
        self.writing = false;
        self.given = Lots::default();
        self.taken.lock().release(&self.released);
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let given = std::mem::take(&mut self.given);
        if self.writing {
            let mut taken = self.taken.lock();
            for lots in [given, std::mem::take(&mut self.released)] {
                taken.doubtful.addresses.extend(lots.addresses);
                taken.doubtful.ports.extend(lots.ports);
            }
        } else if !given.addresses.is_empty() || !given.ports.is_empty() {
            self.taken.lock().release(&given);
        }
    }
}
