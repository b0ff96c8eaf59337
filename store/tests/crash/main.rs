//! A process with a durable store is killed at random moments, again and again, and every time the store is opened and looked at:
//! everything that was acknowledged is there, and nothing is half there.
//!
//! The long run:
//!
//! ```sh
//! ORLOP_CRASH_ROUNDS=200 cargo test --release -p orlop-store --test crash -- --nocapture
//! ```
//!
//! `ORLOP_CRASH_SEED` repeats the choices of a run; when the kills strike is up to the machine.

mod child;
mod journal;
mod workload;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use orlop_core::env::Env;
use orlop_store::{DurableOptions, DurableStore};

use self::journal::Journal;
use self::workload::Random;

/// How many rounds there are when nothing is said.
const ROUNDS: u64 = 12;

/// The variables by which the child is told what to do.
const DIR: &str = "ORLOP_CRASH_DIR";
const SEED: &str = "ORLOP_CRASH_SEED";
const ROUND: &str = "ORLOP_CRASH_ROUND";

/// Small segments and frequent checkpoints, so that kills meet them.
fn options() -> DurableOptions {
    let mut options = DurableOptions::default();
    options.segment_bytes = 64 << 10;
    options.checkpoint_bytes = 192 << 10;
    options.history_bytes = 2 << 20;
    options
}

fn variable(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().expect("a number"))
}

/// What the process that is killed does. It is run by the test below.
#[test]
#[ignore = "the child process of survives_kills"]
fn child() {
    let Some(dir) = std::env::var_os(DIR) else {
        return;
    };
    let (seed, round) = (variable(SEED), variable(ROUND));
    child::run(
        Path::new(&dir),
        seed.expect("a seed"),
        round.expect("a round"),
    );
}

#[test]
fn survives_kills() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime");
    let env = runtime.block_on(async { Env::tokio() });
    let seed = variable(SEED).unwrap_or_else(|| env.random_u64() >> 16);
    let rounds = variable("ORLOP_CRASH_ROUNDS").unwrap_or(ROUNDS);
    println!("{rounds} rounds with {SEED}={seed}");
    let dir = tempfile::tempdir().expect("a directory");
    let mut random = Random::new(seed);
    let mut journal = Journal::default();
    for round in 0..rounds {
        // Some die while they open the store.
        let early = round % 4 == 3;
        let after = if early {
            random.below(80)
        } else {
            20 + random.below(400)
        };
        run_and_kill(
            dir.path(),
            seed,
            round,
            early,
            Duration::from_millis(after),
            &mut journal,
        );
        runtime.block_on(async {
            let store = DurableStore::open(dir.path().join(child::STORE), options(), env.clone())
                .expect("the store opens");
            journal.check(&store).await;
            journal.check_backups(&store, dir.path(), &env).await;
            store.close().await;
        });
    }
    println!("{}", journal.summary());
    assert!(
        journal.acknowledged() > rounds,
        "hardly anything was written"
    );
}

/// Runs the child, takes down what it says, and kills it.
fn run_and_kill(
    dir: &Path,
    seed: u64,
    round: u64,
    early: bool,
    after: Duration,
    journal: &mut Journal,
) {
    let own = std::env::current_exe().expect("the test's own program");
    let mut child = Command::new(own)
        .args(["--exact", "child", "--ignored", "--nocapture"])
        .env(DIR, dir)
        .env(SEED, seed.to_string())
        .env(ROUND, round.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the child starts");
    let out = child.stdout.take().expect("its output");
    let (lines, said) = std::sync::mpsc::channel();
    // The pipe must not fill up: that would hold the child.
    let reader = std::thread::spawn(move || {
        let mut out = BufReader::new(out);
        let mut line = Vec::new();
        while out.read_until(b'\n', &mut line).expect("a read") > 0 {
            // The last line may be cut off.
            if line.ends_with(b"\n") && line.starts_with(b"#") {
                let text = String::from_utf8(line.clone()).expect("text");
                if lines.send(text).is_err() {
                    return;
                }
            }
            line.clear();
        }
    });
    let mut heard = Vec::new();
    if !early {
        // The clock begins when the store is open.
        let first = said
            .recv_timeout(Duration::from_secs(60))
            .expect("the child opens the store");
        heard.push(first);
    }
    std::thread::sleep(after);
    child.kill().expect("a kill");
    let status = child.wait().expect("its end");
    assert!(
        status.code().is_none(),
        "round {round}: the child ended by itself: {status}"
    );
    reader.join().expect("the reader");
    heard.extend(said.try_iter());
    for line in heard {
        journal.take_down(&line);
    }
}
