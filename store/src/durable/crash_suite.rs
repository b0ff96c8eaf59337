//! The suite of crashes over the simulated disk, which tears, drops and reorders what was not synced.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use orlop_core::conformance::store::{CrashSubject, Crashes, crashes};
use orlop_core::env::Env;
use orlop_core::store::{Store, StoreError};

use super::sim_disk::SimDisk;
use super::{DurableOptions, DurableStore};

struct Simulated {
    disk: SimDisk,
    options: DurableOptions,
    env: Env,
    /// The power goes; otherwise only the process ends.
    power: bool,
    crashed: AtomicBool,
}

#[async_trait]
impl CrashSubject for Simulated {
    async fn open(&self) -> Result<Arc<dyn Store>, StoreError> {
        if self.crashed.swap(true, Ordering::Relaxed) {
            if self.power {
                self.disk.crash();
            } else {
                self.disk.kill();
            }
        }
        // It dies in the middle of what it does, sometimes while it is being opened.
        self.disk.die_after(2 + self.env.random_below(160));
        let store =
            DurableStore::open_disk(Arc::new(self.disk.clone()), &self.options, self.env.clone())?;
        Ok(Arc::new(store))
    }

    async fn crash(&self) {
        self.disk.die_after(0);
    }
}

fn run(seeds: std::ops::Range<u64>, power: bool, options: &DurableOptions) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime");
    for seed in seeds {
        runtime.block_on(async {
            let env = Env::tokio();
            let subject = Simulated {
                disk: SimDisk::new(seed),
                options: options.clone(),
                env: env.clone(),
                power,
                crashed: AtomicBool::new(false),
            };
            let mut load = Crashes::default();
            load.rounds = 12;
            load.patience = Duration::from_millis(150);
            crashes(&subject, &env, &load).await;
        });
    }
}

fn small() -> DurableOptions {
    DurableOptions {
        segment_bytes: 4 << 10,
        checkpoint_bytes: 12 << 10,
        ..DurableOptions::default()
    }
}

#[test]
fn power_cuts() {
    let options = DurableOptions {
        segment_bytes: 128 << 10,
        ..DurableOptions::default()
    };
    run(0..4, true, &options);
}

#[test]
fn power_cuts_among_checkpoints() {
    run(10..14, true, &small());
}

#[test]
fn kills_among_checkpoints() {
    run(20..24, false, &small());
}

#[test]
fn power_cuts_with_little_history() {
    let options = DurableOptions {
        history_bytes: 20_000,
        ..small()
    };
    run(30..34, true, &options);
}
