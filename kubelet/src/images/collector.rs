//! [`ImageCollector`]: removes images that nobody uses when the disk fills up.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use orlop_core::env::{Env, Moment, TaskGroup};
use orlop_core::events::{EventRecorder, ObjectReference};
use orlop_core::runtime::{
    ContainerFilter, Image, ImageId, ImageSpec, MountSource, Runtime, RuntimeError,
};
use parking_lot::Mutex;

use crate::blocking::blocking;
use crate::config::KubeletConfig;

/// How often the disk is looked at.
const PERIOD: Duration = Duration::from_secs(300);

/// Tells how much the file system of a path holds and how much of it is free, in bytes.
pub type DiskSpace = Arc<dyn Fn(&Path) -> io::Result<(u64, u64)> + Send + Sync>;

/// Why not enough could be freed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CollectError {
    /// The runtime cannot tell, or refused.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// The runtime names no file system for images.
    #[error("the runtime names no file system for images")]
    NoFilesystem,
    /// A file system cannot be measured.
    #[error("{0}")]
    Disk(String),
    /// A file system of no size.
    #[error("invalid capacity 0 on image filesystem")]
    NoCapacity,
    /// There are not enough images that may go.
    #[error(
        "Failed to garbage collect required amount of images. Attempted to free {wanted} bytes, but only found {freed} bytes eligible to free."
    )]
    NotEnough {
        /// How many bytes were to be freed.
        wanted: u64,
        /// How many were.
        freed: u64,
    },
    /// Some images could not be removed.
    #[error(
        "wanted to free {wanted} bytes, but freed {freed} bytes space with errors in image deletion: {errors}"
    )]
    Deletion {
        /// How many bytes were to be freed.
        wanted: u64,
        /// How many were.
        freed: u64,
        /// What went wrong.
        errors: String,
    },
}

/// Removes images. Clones share what is known.
#[derive(Clone)]
pub struct ImageCollector(Arc<Inner>);

struct Inner {
    runtime: Arc<dyn Runtime>,
    recorder: EventRecorder,
    env: Env,
    disk: DiskSpace,
    node: ObjectReference,
    high: u8,
    low: u8,
    min_age: Duration,
    spared: BTreeSet<String>,
    state: Mutex<State>,
    /// One collection at a time: two would count the same images as freed.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    records: BTreeMap<ImageId, Record>,
    /// Whether images have been looked at before: those that were there at the start are of unknown, great age.
    looked: bool,
    failed_before: bool,
}

#[derive(Clone, Copy)]
struct Record {
    /// `None`: before the start.
    seen: Option<Moment>,
    used: Option<Moment>,
    size: u64,
    pinned: bool,
}

impl fmt::Debug for ImageCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ImageCollector")
            .field("images", &self.0.state.lock().records.len())
            .finish_non_exhaustive()
    }
}

impl ImageCollector {
    /// A collector for a runtime's images.
    pub fn new(
        config: &KubeletConfig,
        runtime: Arc<dyn Runtime>,
        recorder: EventRecorder,
        env: Env,
    ) -> Self {
        let space = |path: &Path| {
            let stat = rustix::fs::statvfs(path)?;
            Ok((stat.f_blocks * stat.f_frsize, stat.f_bavail * stat.f_frsize))
        };
        Self::with(config, runtime, recorder, env, Arc::new(space), [])
    }

    /// The same, with another way to measure disks, and with images that are spared by name: the one that sandboxes are made of, where
    /// the runtime does not pin it.
    pub fn with(
        config: &KubeletConfig,
        runtime: Arc<dyn Runtime>,
        recorder: EventRecorder,
        env: Env,
        disk: DiskSpace,
        spared: impl IntoIterator<Item = String>,
    ) -> Self {
        let node = ObjectReference {
            kind: "Node".to_owned(),
            name: config.node_name.clone(),
            uid: config.node_name.clone(),
            ..ObjectReference::default()
        };
        Self(Arc::new(Inner {
            runtime,
            recorder,
            env,
            disk,
            node,
            high: config.image_gc_high_threshold_percent,
            low: config.image_gc_low_threshold_percent,
            min_age: config.image_minimum_gc_age,
            spared: spared.into_iter().collect(),
            state: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
        }))
    }

    /// Looks at the disk now and every five minutes, until the group ends. A threshold of 100 percent is never reached: then images
    /// are only looked at, so that their ages are known to [`delete_unused`](Self::delete_unused).
    pub fn start(&self, group: &TaskGroup) {
        let inner = self.0.clone();
        group.spawn_until_cancelled("image-collector", async move {
            loop {
                inner.round().await;
                inner.env.sleep(PERIOD).await;
            }
        });
    }

    /// Looks at the disk, and frees what is to be freed.
    ///
    /// # Errors
    /// When the disk cannot be measured, or not enough could be freed.
    pub async fn collect(&self) -> Result<(), CollectError> {
        self.0.collect().await
    }

    /// Removes every image that nobody uses and that is old enough; for a node that is short of disk. Returns how many bytes were
    /// freed.
    ///
    /// # Errors
    /// When the runtime cannot tell or some image could not be removed.
    pub async fn delete_unused(&self) -> Result<u64, CollectError> {
        self.0.free(u64::MAX).await
    }
}

impl Inner {
    async fn round(&self) {
        let done = if self.high >= 100 {
            self.look().await.map(|_| ())
        } else {
            self.collect().await
        };
        let failed = done.is_err();
        let again = std::mem::replace(&mut self.state.lock().failed_before, failed);
        match done {
            // A first failure may be the runtime's start.
            Err(error) if again => {
                tracing::warn!(%error, "images could not be collected, again");
                self.recorder
                    .warning(self.node.clone(), "ImageGCFailed", error.to_string());
            }
            Err(error) => tracing::info!(%error, "images could not be collected"),
            Ok(()) => {}
        }
    }

    async fn collect(&self) -> Result<(), CollectError> {
        self.look().await?;
        let filesystems = self.runtime.image_filesystems().await?;
        let place = filesystems
            .images
            .first()
            .ok_or(CollectError::NoFilesystem)?
            .mountpoint
            .clone();
        let disk = self.disk.clone();
        let measured = blocking(move || {
            disk(&place).map_err(|error| CollectError::Disk(format!("measure {place:?}: {error}")))
        });
        let (capacity, available) = measured.await?;
        if capacity == 0 {
            let error = CollectError::NoCapacity;
            self.recorder
                .warning(self.node.clone(), "InvalidDiskCapacity", error.to_string());
            return Err(error);
        }
        let available = available.min(capacity);
        let percent = |part: u64| (u128::from(capacity) * u128::from(part) / 100) as u64;
        let used = 100 - (u128::from(available) * 100 / u128::from(capacity)) as u64;
        if used < u64::from(self.high) {
            return Ok(());
        }
        let wanted = percent(100 - u64::from(self.low.min(100))).saturating_sub(available);
        tracing::info!(used, wanted, "the disk of images is fuller than it may be");
        let freed = self.free(wanted).await?;
        if freed < wanted {
            let error = CollectError::NotEnough { wanted, freed };
            self.recorder
                .warning(self.node.clone(), "FreeDiskSpaceFailed", error.to_string());
            return Err(error);
        }
        Ok(())
    }

    /// Brings the records up to date. Returns which images are in use.
    async fn look(&self) -> Result<BTreeSet<ImageId>, CollectError> {
        let images = self.runtime.images().await?;
        let containers = self.runtime.containers(&ContainerFilter::default()).await?;
        let mut used = BTreeSet::new();
        for container in &containers {
            let mut named = vec![container.image.image.as_str(), container.image_ref.as_str()];
            for mount in &container.mounts {
                if let MountSource::Image { image, .. } = &mount.source {
                    named.push(&image.image);
                }
            }
            used.insert(container.image_id.clone());
            // A runtime may tell no id of a container's image, and of an image that is mounted only the name is known.
            let answers = |image: &&Image| named.iter().any(|name| image.answers_to(name));
            used.extend(images.iter().filter(answers).map(|image| image.id.clone()));
        }
        let now = self.env.now();
        let mut state = self.state.lock();
        let seen = state.looked.then_some(now);
        state.looked = true;
        let before = std::mem::take(&mut state.records);
        for image in images {
            let spared = self.spared.iter().any(|name| image.answers_to(name));
            let old = before.get(&image.id);
            let record = Record {
                seen: old.map_or(seen, |old| old.seen),
                used: if used.contains(&image.id) {
                    Some(now)
                } else {
                    old.and_then(|old| old.used)
                },
                size: image.size,
                pinned: image.pinned || spared,
            };
            state.records.insert(image.id, record);
        }
        Ok(used)
    }

    /// Removes images, those that were used longest ago first, until so many bytes are free.
    async fn free(&self, wanted: u64) -> Result<u64, CollectError> {
        let _turn = self.turn.lock().await;
        let used = self.look().await?;
        let now = self.env.now();
        let mut candidates: Vec<(ImageId, Record)> = {
            let state = self.state.lock();
            let may_go = |(id, record): &(&ImageId, &Record)| {
                let old = record
                    .seen
                    .is_none_or(|seen| now.since(seen) >= self.min_age);
                !record.pinned && !used.contains(*id) && old
            };
            let all = state.records.iter().filter(may_go);
            all.map(|(id, record)| (id.clone(), *record)).collect()
        };
        candidates.sort_by_key(|(_, record)| (record.used, record.seen));
        let mut freed: u64 = 0;
        let mut errors = Vec::new();
        for (id, record) in candidates {
            match self.runtime.remove_image(&ImageSpec::from(&id)).await {
                Ok(()) => {
                    self.state.lock().records.remove(&id);
                    freed = freed.saturating_add(record.size);
                }
                Err(error) => errors.push(error.to_string()),
            }
            if freed >= wanted {
                break;
            }
        }
        if errors.is_empty() {
            Ok(freed)
        } else {
            Err(CollectError::Deletion {
                wanted,
                freed,
                errors: errors.join(", "),
            })
        }
    }
}
