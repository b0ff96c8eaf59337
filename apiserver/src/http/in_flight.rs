//! The limit of requests under way.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How many requests may be under way.
#[derive(Debug)]
pub(crate) struct InFlight {
    reading: AtomicUsize,
    writing: AtomicUsize,
}

/// At most so many that only read, …
const MAX_READING: usize = 400;
/// … and so many that write.
const MAX_WRITING: usize = 200;

impl InFlight {
    pub(crate) const fn new() -> Self {
        Self {
            reading: AtomicUsize::new(0),
            writing: AtomicUsize::new(0),
        }
    }

    pub(super) fn enter(self: &Arc<Self>, writes: bool) -> Option<Ticket> {
        let (count, limit) = if writes {
            (&self.writing, MAX_WRITING)
        } else {
            (&self.reading, MAX_READING)
        };
        if count.fetch_add(1, Ordering::AcqRel) >= limit {
            count.fetch_sub(1, Ordering::AcqRel);
            return None;
        }
        Some(Ticket {
            in_flight: self.clone(),
            writes,
        })
    }
}

/// A place among the requests under way.
pub(super) struct Ticket {
    in_flight: Arc<InFlight>,
    writes: bool,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let count = if self.writes {
            &self.in_flight.writing
        } else {
            &self.in_flight.reading
        };
        count.fetch_sub(1, Ordering::AcqRel);
    }
}
