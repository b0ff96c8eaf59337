//! Reading a log file, and following it.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use futures::future::BoxFuture;
use orlop_core::env::{Env, Moment};

use super::filter::Filter;
use super::tail::start_of_tail;
use super::watch::Watcher;
use super::{LogError, LogOptions};
use crate::blocking::blocking;

/// How much is read at a time.
const BLOCK: usize = 64 * 1024;

/// How often is asked whether a container still runs, while its log does not grow.
const ALIVE: Duration = Duration::from_secs(1);

/// A log: pieces of text.
pub type LogStream = Pin<Box<dyn Stream<Item = Result<Bytes, LogError>> + Send>>;

/// The file at the end of a path, and how far it was read.
struct Place {
    path: PathBuf,
    file: File,
    offset: u64,
}

impl Place {
    fn open(path: &Path, tail: Option<u64>) -> Result<Self, LogError> {
        let fail = |action| {
            let path = path.to_owned();
            move |source| LogError {
                action,
                path,
                source,
            }
        };
        // The directory of a link is of no use to who waits for the file to grow.
        let path = path.canonicalize().map_err(fail("open"))?;
        let mut file = File::open(&path).map_err(fail("open"))?;
        let offset = match tail {
            Some(lines) => start_of_tail(&file, lines).map_err(fail("tail"))?,
            None => 0,
        };
        file.seek(SeekFrom::Start(offset))
            .map_err(fail("seek in"))?;
        Ok(Self { path, file, offset })
    }

    /// Reads a block; nothing at the end.
    fn read(&mut self, block: &mut Vec<u8>) -> io::Result<()> {
        block.resize(BLOCK, 0);
        let count = loop {
            match self.file.read(block) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => break result?,
            }
        };
        block.truncate(count);
        self.offset += count as u64;
        Ok(())
    }

    /// The file that has taken the place of this one, if there is one.
    fn successor(&self) -> io::Result<Option<File>> {
        let next = match File::open(&self.path) {
            Ok(next) => next,
            // Between being moved away and being made anew.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let (own, other) = (self.file.metadata()?, next.metadata()?);
        Ok(((own.dev(), own.ino()) != (other.dev(), other.ino())).then_some(next))
    }

    /// Goes back to the start of a file that was cut off behind our back.
    fn rewind_if_truncated(&mut self) -> io::Result<bool> {
        if self.file.metadata()?.len() >= self.offset {
            return Ok(false);
        }
        self.offset = 0;
        self.file.seek(SeekFrom::Start(0))?;
        Ok(true)
    }

    fn failed(&self) -> impl Fn(io::Error) -> LogError + use<> {
        let path = self.path.clone();
        move |source| LogError {
            action: "read",
            path: path.clone(),
            source,
        }
    }
}

/// Whether a container still runs.
type Alive = Box<dyn Fn() -> BoxFuture<'static, bool> + Send + Sync>;

struct Reader {
    place: Option<Place>,
    filter: Filter,
    follow: bool,
    alive: Alive,
    asked: Option<Moment>,
    /// The container has ended: the file is read to its end once more.
    ended: bool,
    /// A file that has taken the place of ours, which is read to its end first.
    next: Option<File>,
    watcher: Option<Watcher>,
    env: Env,
    over: bool,
}

/// What a look at the end of the file has shown.
enum Look {
    Nothing,
    Truncated,
    Next(File),
}

/// Reads a log. With `follow` it goes on until `alive`, which is asked about once a second while nothing is written, says that the
/// container does not run any more.
///
/// # Errors
/// [`LogError`]: the file is not there, or cannot be read. Errors that come later end the stream.
pub async fn read(
    path: PathBuf,
    options: &LogOptions,
    alive: impl Fn() -> BoxFuture<'static, bool> + Send + Sync + 'static,
    env: &Env,
) -> Result<LogStream, LogError> {
    let tail = options.tail;
    let place = blocking(move || Place::open(&path, tail)).await?;
    let reader = Reader {
        place: Some(place),
        filter: Filter::new(options),
        follow: options.follow,
        alive: Box::new(alive),
        asked: None,
        ended: false,
        next: None,
        watcher: None,
        env: env.clone(),
        over: false,
    };
    Ok(Box::pin(futures::stream::unfold(
        reader,
        |mut reader| async move {
            let piece = reader.next().await?;
            reader.over |= piece.is_err();
            Some((piece, reader))
        },
    )))
}

impl Reader {
    /// Does something with the place that may wait for a disk.
    async fn with<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Place) -> io::Result<T> + Send + 'static,
    ) -> Result<T, LogError> {
        let Some(mut place) = self.place.take() else {
            // Only after a call was dropped in the middle, which ends the stream.
            return Err(LogError {
                action: "read",
                path: PathBuf::new(),
                source: io::ErrorKind::Interrupted.into(),
            });
        };
        let failed = place.failed();
        let (place, result) = blocking(move || {
            let result = work(&mut place);
            (place, result)
        })
        .await;
        self.place = Some(place);
        result.map_err(failed)
    }

    async fn next(&mut self) -> Option<Result<Bytes, LogError>> {
        while !self.over {
            if self.filter.is_done() {
                return None;
            }
            let mut out = Vec::new();
            if let Err(error) = self.step(&mut out).await {
                return Some(Err(error));
            }
            if !out.is_empty() {
                return Some(Ok(out.into()));
            }
        }
        None
    }

    /// Reads on, or waits until there is something to read.
    async fn step(&mut self, out: &mut Vec<u8>) -> Result<(), LogError> {
        let block = self
            .with(|place| {
                let mut block = Vec::new();
                place.read(&mut block).map(|()| block)
            })
            .await?;
        if !block.is_empty() {
            self.filter.feed(&block, out);
            return Ok(());
        }
        // At the end.
        if let Some(next) = self.next.take() {
            self.filter.next_file(out);
            return self
                .with(|place| {
                    (place.file, place.offset) = (next, 0);
                    Ok(())
                })
                .await;
        }
        let look = self
            .with(|place| {
                Ok(if let Some(next) = place.successor()? {
                    Look::Next(next)
                } else if place.rewind_if_truncated()? {
                    Look::Truncated
                } else {
                    Look::Nothing
                })
            })
            .await;
        if !self.follow || self.ended {
            // A file that was replaced while it was read is all there is for who does not follow.
            if self.ended
                && let Ok(Look::Next(next)) = look
            {
                self.next = Some(next);
                return Ok(());
            }
            self.filter.finish(out);
            self.over = true;
            return Ok(());
        }
        match look? {
            Look::Next(next) => {
                // What was written into the old one until it was given up is read first.
                self.next = Some(next);
                return Ok(());
            }
            Look::Truncated => return Ok(()),
            Look::Nothing => {}
        }
        let Some(watcher) = &self.watcher else {
            // What is written from here on is an event; what was written before it is read first.
            let directory = self
                .place
                .as_ref()
                .and_then(|place| place.path.parent().map(Path::to_owned))
                .unwrap_or_default();
            self.watcher = Some(Watcher::new(&directory, &self.env));
            return Ok(());
        };
        let now = self.env.now();
        if self.asked.is_none_or(|asked| now.since(asked) >= ALIVE) {
            self.asked = Some(now);
            if !(self.alive)().await {
                self.ended = true;
                return Ok(());
            }
        }
        watcher.changed().await;
        Ok(())
    }
}
