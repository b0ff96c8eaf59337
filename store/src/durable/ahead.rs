//! The file of the log's next segment, made before it is needed.
//!
//! Where bytes were never written before, a sync has to note down as well where they are: on ext4 that makes it take twice as long, also
//! where room was reserved. So a segment is full of zeros before the log comes to it, and a thread of its own writes them.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use parking_lot::Mutex;

use super::disk::{Disk, DiskFile};

/// What the file is called until it is a segment.
pub(super) const NAME: &str = "log.ahead";

/// How many zeros are written and synced at once, so that the log's own syncs have little to wait for.
const STEP: usize = 1 << 20;

/// A file full of zeros, and how long it is.
pub(super) type Blank = (Box<dyn DiskFile>, u64);

/// The next file, or the thread that makes it.
pub(super) struct Ahead {
    disk: Arc<dyn Disk>,
    stop: Arc<AtomicBool>,
    made: Arc<Mutex<Option<Blank>>>,
    making: Option<JoinHandle<()>>,
}

impl Ahead {
    pub(super) fn new(disk: Arc<dyn Disk>) -> Self {
        Self {
            disk,
            stop: Arc::default(),
            made: Arc::default(),
            making: None,
        }
    }

    /// Begins to make a file of so many bytes, unless that was begun since the last was [taken](Self::take). Where it fails the log does
    /// without.
    pub(super) fn begin(&mut self, bytes: u64) {
        if self.making.is_some() {
            return;
        }
        let (disk, stop, made) = (self.disk.clone(), self.stop.clone(), self.made.clone());
        let spawned = std::thread::Builder::new()
            .name("store-log-ahead".to_owned())
            .spawn(move || match make(&*disk, bytes, &stop) {
                Ok(Some(file)) => *made.lock() = Some((file, bytes)),
                Ok(None) => {}
                Err(error) => {
                    tracing::debug!(%error, "no segment could be made ahead");
                    let _ = disk.remove(NAME);
                }
            });
        match spawned {
            Ok(thread) => self.making = Some(thread),
            Err(error) => tracing::debug!(%error, "no segment could be begun ahead"),
        }
    }

    /// The file, if there is one. It is called [`NAME`] yet.
    pub(super) fn take(&mut self) -> Option<Blank> {
        if self.making.as_ref()?.is_finished() {
            self.making = None;
        }
        let taken = self.made.lock().take();
        if taken.is_some() {
            self.making = None;
        }
        taken
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(making) = self.making.take() {
            // A panic was reported when it happened.
            let _ = making.join();
            // It would be removed when the log is opened again, too.
            let _ = self.disk.remove(NAME);
        }
    }
}

/// Makes the file; `None` when it was told to stop.
fn make(disk: &dyn Disk, bytes: u64, stop: &AtomicBool) -> io::Result<Option<Box<dyn DiskFile>>> {
    let mut file = disk.create(NAME)?;
    let mut at = 0;
    while at < bytes {
        if stop.load(Ordering::Acquire) {
            return Ok(None);
        }
        at += fill(&mut *file, at, bytes)?;
        file.sync()?;
    }
    Ok(Some(file))
}

/// Writes some zeros at an offset, up to a length of the file. Returns how many.
pub(super) fn fill(file: &mut dyn DiskFile, at: u64, length: u64) -> io::Result<u64> {
    const ZEROS: &[u8] = &[0; STEP];
    let count = (length - at).min(STEP as u64);
    file.write(at, &ZEROS[..count as usize])?;
    Ok(count)
}
