//! Own log, redb or fjall?
//!
//! The work of the durable store, on three engines:
//!
//! * `own`: the durable store itself, with everything it does beside: conditions, the index, history, watches.
//! * `redb`, `fjall`: versions under key and revision in an ordered map, batches of what queued while the last one was synced, each as its documentation
//!   says: a transaction of redb is durable by default; a batch of fjall with `PersistMode::SyncData`. Both have a cache that holds everything.
//!   They have no index, no watches, no conditions: the work is less than a store's.
//!
//! Measured: durable puts of 256 bytes and 1 KiB by 1, 64 and 512 clients, each of which waits for its answer; filling with 1,000,000 values of 256
//! bytes, memory and disk then; opening it after the process was killed, and again after it ended well; reads of 500 keys with a common prefix. Each
//! piece has a process of its own.
//!
//! `cargo run --release --manifest-path benches/engines/Cargo.toml [KEYS [SECONDS]]`

#![allow(clippy::disallowed_methods, reason = "a bench measures real time")]

mod engine;
mod group;
mod work;

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use self::engine::Engine;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == "piece") {
        piece(&arguments[1..]);
        return;
    }
    let number = |at: usize, default: u64| match arguments.get(at) {
        Some(argument) => argument.parse().expect("a number"),
        None => default,
    };
    let (keys, seconds) = (number(0, 1_000_000), number(1, 3));
    puts(seconds);
    million(keys, seconds);
}

/// Does one piece of work: `NAME DIRECTORY WHAT ARGUMENT...`
fn piece(arguments: &[String]) {
    let (name, directory) = (&*arguments[0], Path::new(&arguments[1]));
    let number = |at: usize| arguments[at].parse::<u64>().expect("a number");
    let seconds = |at| Duration::from_secs(number(at));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        match &*arguments[2] {
            "commit" => {
                let engine = Engine::open(name, directory);
                work::commit(engine, number(3) as usize, number(4) as usize, seconds(5)).await;
            }
            "fill" => {
                let engine = Engine::open(name, directory);
                work::fill(&engine, number(3), 256).await;
                // The engine is not closed, as when it is killed: everything that was acknowledged must be there.
                std::process::exit(0);
            }
            "open" => drop(work::open(name, directory, number(3)).await),
            "range" => {
                let engine = Engine::open(name, directory);
                work::range(engine, number(3), number(4) as usize, seconds(5)).await;
            }
            other => panic!("no work is called {other}"),
        }
    });
}

/// Has a piece done by a process of its own, and returns the numbers that it prints.
fn done(name: &str, directory: &Path, work: &str, arguments: &[u64]) -> Vec<f64> {
    let output = Command::new(std::env::current_exe().expect("a path"))
        .args(["piece", name])
        .arg(directory)
        .arg(work)
        .args(arguments.iter().map(u64::to_string))
        .output()
        .expect("a process");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name} {work}: {said}");
    let numbers = String::from_utf8_lossy(&output.stdout);
    let numbers = numbers.split_whitespace();
    numbers.map(|it| it.parse().expect("a number")).collect()
}

fn puts(seconds: u64) {
    println!("| durable puts a second; p50, p99 | 1 client | 64 | 512 |\n|---|---|---|---|");
    for length in [256, 1024] {
        for name in Engine::ALL {
            print!("| {name}, {length} B |");
            for clients in [1, 64, 512] {
                let directory = tempfile::tempdir().expect("a directory");
                let path = directory.path().join("store");
                let came = done(name, &path, "commit", &[length, clients, seconds]);
                print!(
                    " {:.0}; {:.2}, {:.2} ms |",
                    came[0],
                    came[1] * 1e3,
                    came[2] * 1e3
                );
            }
            println!();
        }
    }
}

fn million(keys: u64, seconds: u64) {
    println!(
        "\n| {keys} keys, 256 B | filled in | MB resident | MB on disk | opened after a kill | MB resident, all read | opened after an end | 500 keys, 1 client: p50, p99 | a second, 64 clients |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    for name in Engine::ALL {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("store");
        let filled = done(name, &path, "fill", &[keys]);
        let size = on_disk(&path);
        let killed = done(name, &path, "open", &[keys]);
        let ended = done(name, &path, "open", &[keys]);
        let one = done(name, &path, "range", &[keys, 1, seconds]);
        let many = done(name, &path, "range", &[keys, 64, seconds]);
        println!(
            "| {name} | {:.1} s | {:.0} | {:.0} | {:.2} s | {:.0} | {:.2} s | {:.0}, {:.0} µs | {:.0} |",
            filled[0],
            filled[1] / 1e6,
            size / 1e6,
            killed[0],
            killed[1] / 1e6,
            ended[0],
            one[1] * 1e6,
            one[2] * 1e6,
            many[0],
        );
    }
}

/// The bytes that the files of a directory take on disk.
fn on_disk(directory: &Path) -> f64 {
    let entries = std::fs::read_dir(directory).expect("a directory");
    let sizes = entries.map(|entry| {
        let entry = entry.expect("an entry");
        let data = entry.metadata().expect("its size");
        if data.is_dir() {
            on_disk(&entry.path())
        } else {
            data.blocks() as f64 * 512.0
        }
    });
    sizes.sum()
}
