//! Virtual time: a single-threaded, seeded, deterministic world.

use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use futures::future::BoxFuture;
use jiff::Timestamp;
use parking_lot::Mutex;

use super::{Env, Environment, Moment, split_mix};

/// How a [`SimEnv`] begins and runs.
#[derive(Clone, Debug)]
pub struct SimOptions {
    /// The seed of all randomness.
    pub seed: u64,
    /// What the wall clock shows at the start.
    pub wall: Timestamp,
    /// Whether to take ready tasks in random (but seeded) order instead of first come, first served: finds what depends on the order.
    pub shuffle: bool,
}

impl Default for SimOptions {
    fn default() -> Self {
        Self {
            seed: 0,
            // An arbitrary, round moment.
            wall: Timestamp::from_second(1_767_225_600).unwrap_or(Timestamp::UNIX_EPOCH),
            shuffle: false,
        }
    }
}

/// A world of its own: tasks run one at a time on the thread that calls [`block_on`](SimEnv::block_on), and when none can run, the
/// clock jumps to the next timer. The same seed and the same program give the same run, to the byte.
///
/// ```
/// use std::time::Duration;
/// use orlop_core::env::SimEnv;
/// let sim = SimEnv::new(42);
/// let env = sim.env();
/// let waited = sim.block_on({
///     let env = env.clone();
///     async move {
///         let start = env.now();
///         env.sleep(Duration::from_secs(7 * 24 * 3600)).await; // a week, in no time
///         env.now().since(start)
///     }
/// });
/// assert_eq!(waited, Duration::from_secs(604_800));
/// ```
#[derive(Clone)]
pub struct SimEnv {
    owner: Arc<Owner>,
}

struct World {
    options: SimOptions,
    state: Mutex<State>,
    /// Woken tasks, in order. A lock of its own: wakers are called from anywhere.
    ready: Mutex<VecDeque<Arc<Task>>>,
    /// Every task that has not ended.
    tasks: Mutex<BTreeMap<u64, std::sync::Weak<Task>>>,
}

struct State {
    now: Moment,
    random: u64,
    timers: BTreeMap<(Moment, u64), Arc<TimerState>>,
    next_timer: u64,
    next_task: u64,
}

struct Task {
    id: u64,
    name: &'static str,
    /// Taken while it is polled; `None` for good once it has ended.
    future: Mutex<Option<BoxFuture<'static, ()>>>,
    queued: AtomicBool,
    world: std::sync::Weak<World>,
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        if !self.queued.swap(true, Ordering::AcqRel)
            && let Some(world) = self.world.upgrade()
        {
            world.ready.lock().push_back(self);
        }
    }
}

#[derive(Default)]
struct TimerState {
    fired: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

thread_local! {
    static RUNNING: Cell<bool> = const { Cell::new(false) };
}

/// The handle that components hold.
struct Handle(Arc<World>);

/// Ends the world with its last [`SimEnv`]: what the tasks hold is dropped, although they hold handles to the world themselves.
struct Owner(Arc<World>);

impl Drop for Owner {
    fn drop(&mut self) {
        let tasks = std::mem::take(&mut *self.0.tasks.lock());
        for task in tasks.into_values().filter_map(|task| task.upgrade()) {
            let future = task.future.lock().take();
            drop(future);
        }
        self.0.ready.lock().clear();
        self.0.state.lock().timers.clear();
    }
}

impl fmt::Debug for SimEnv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimEnv")
            .field("options", &self.owner.0.options)
            .finish_non_exhaustive()
    }
}

impl SimEnv {
    /// A world with a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self::with_options(SimOptions {
            seed,
            ..SimOptions::default()
        })
    }

    /// A world with options.
    #[must_use]
    pub fn with_options(options: SimOptions) -> Self {
        let random = options.seed ^ 0x6f72_6c6f_7000_0001;
        Self {
            owner: Arc::new(Owner(Arc::new(World {
                options,
                state: Mutex::new(State {
                    now: Moment::START,
                    random,
                    timers: BTreeMap::new(),
                    next_timer: 0,
                    next_task: 0,
                }),
                ready: Mutex::new(VecDeque::new()),
                tasks: Mutex::new(BTreeMap::new()),
            }))),
        }
    }

    /// The handle that components take.
    #[must_use]
    pub fn env(&self) -> Env {
        Env::new(Handle(self.owner.0.clone()))
    }

    /// Runs a future, and every task that it spawns, until the future ends. Tasks that still run stay where they are and go on in the
    /// next call.
    ///
    /// # Panics
    /// When the future waits for something that can never happen (no task can run and no timer is set), when it is called from
    /// inside itself, and when a task panics.
    pub fn block_on<F>(&self, future: F) -> F::Output
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        assert!(
            !RUNNING.replace(true),
            "SimEnv::block_on was called from inside itself"
        );
        struct Reset;
        impl Drop for Reset {
            fn drop(&mut self) {
                RUNNING.set(false);
            }
        }
        let _reset = Reset;
        let output = Arc::new(Mutex::new(None));
        let slot = output.clone();
        self.owner.0.spawn(
            "main",
            Box::pin(async move {
                let value = future.await;
                *slot.lock() = Some(value);
            }),
        );
        loop {
            if let Some(value) = output.lock().take() {
                return value;
            }
            let world = &self.owner.0;
            assert!(
                world.step(),
                "deadlock: no task can run and no timer is set (seed {})",
                world.options.seed
            );
        }
    }

    /// Runs all tasks for a span of virtual time.
    pub fn run_for(&self, duration: Duration) {
        let env = self.env();
        self.block_on(async move { env.sleep(duration).await });
    }
}

impl World {
    /// Polls one ready task, or fires the next timers. False when there is nothing to do.
    fn step(&self) -> bool {
        let next = {
            let mut ready = self.ready.lock();
            if self.options.shuffle && ready.len() > 1 {
                let pick = (split_mix(&mut self.state.lock().random) % ready.len() as u64) as usize;
                ready.swap(0, pick);
            }
            ready.pop_front()
        };
        if let Some(task) = next {
            task.queued.store(false, Ordering::Release);
            let Some(mut future) = task.future.lock().take() else {
                return true;
            };
            let waker = Waker::from(task.clone());
            tracing::trace!(task = task.name, "poll");
            if future
                .as_mut()
                .poll(&mut Context::from_waker(&waker))
                .is_pending()
            {
                *task.future.lock() = Some(future);
            } else {
                self.tasks.lock().remove(&task.id);
            }
            return true;
        }
        let timer = {
            let mut state = self.state.lock();
            let Some(((at, _), timer)) = state.timers.pop_first() else {
                return false;
            };
            state.now = state.now.max(at);
            timer
        };
        timer.fired.store(true, Ordering::Release);
        if let Some(waker) = timer.waker.lock().take() {
            waker.wake();
        }
        true
    }

    fn spawn(self: &Arc<Self>, name: &'static str, future: BoxFuture<'static, ()>) {
        let id = {
            let mut state = self.state.lock();
            state.next_task += 1;
            state.next_task
        };
        let task = Arc::new(Task {
            id,
            name,
            future: Mutex::new(Some(future)),
            queued: AtomicBool::new(true),
            world: Arc::downgrade(self),
        });
        self.tasks.lock().insert(id, Arc::downgrade(&task));
        self.ready.lock().push_back(task);
    }
}

impl Environment for Handle {
    fn now(&self) -> Moment {
        self.0.state.lock().now
    }

    fn wall(&self) -> Timestamp {
        let elapsed = self.0.state.lock().now.since_start();
        self.0
            .options
            .wall
            .checked_add(elapsed)
            .unwrap_or(Timestamp::MAX)
    }

    fn sleep_until(&self, at: Moment) -> BoxFuture<'static, ()> {
        Box::pin(Sleep {
            world: self.0.clone(),
            at,
            key: None,
            timer: Arc::default(),
        })
    }

    fn spawn(&self, name: &'static str, task: BoxFuture<'static, ()>) {
        self.0.spawn(name, task);
    }

    fn random_u64(&self) -> u64 {
        split_mix(&mut self.0.state.lock().random)
    }
}

struct Sleep {
    world: Arc<World>,
    at: Moment,
    key: Option<(Moment, u64)>,
    timer: Arc<TimerState>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.timer.fired.load(Ordering::Acquire) {
            return Poll::Ready(());
        }
        if self.key.is_none() {
            let mut state = self.world.state.lock();
            if state.now >= self.at {
                return Poll::Ready(());
            }
            let key = (self.at, state.next_timer);
            state.next_timer += 1;
            state.timers.insert(key, self.timer.clone());
            drop(state);
            self.key = Some(key);
        }
        *self.timer.waker.lock() = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(key) = self.key.take() {
            self.world.state.lock().timers.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(seed: u64, shuffle: bool) -> Vec<(Duration, u64)> {
        let sim = SimEnv::with_options(SimOptions {
            seed,
            shuffle,
            ..SimOptions::default()
        });
        let env = sim.env();
        let log = Arc::new(Mutex::new(Vec::new()));
        for id in 0..8u64 {
            let (env, log) = (env.clone(), log.clone());
            env.clone().spawn("t", async move {
                for _ in 0..5 {
                    env.sleep(Duration::from_millis(env.random_below(50))).await;
                    log.lock().push((env.now().since_start(), id));
                }
            });
        }
        sim.run_for(Duration::from_secs(10));
        let log = log.lock();
        log.clone()
    }

    #[test]
    fn the_same_seed_gives_the_same_run() {
        for shuffle in [false, true] {
            assert_eq!(log(1, shuffle), log(1, shuffle));
            assert_ne!(log(1, shuffle), log(2, shuffle));
            assert_eq!(log(3, shuffle).len(), 40);
        }
    }

    #[test]
    fn a_dropped_sleep_leaves_no_timer() {
        let sim = SimEnv::new(1);
        let env = sim.env();
        sim.block_on(async move {
            let long = env.sleep(Duration::from_secs(1000));
            assert!(env.timeout(Duration::from_secs(1), long).await.is_err());
        });
        assert!(sim.owner.0.state.lock().timers.is_empty());
    }

    #[test]
    #[should_panic(expected = "deadlock")]
    fn waiting_for_nothing_is_reported() {
        SimEnv::new(1).block_on(std::future::pending::<()>());
    }
}
