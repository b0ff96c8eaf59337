use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::StreamExt;
use orlop_core::env::{Env, SimEnv};

use super::*;

fn append(path: &Path, text: &str) {
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

fn record(n: usize) -> String {
    format!("2026-01-01T00:00:00.{n:09}Z stdout F line {n}\n")
}

async fn collect(path: &Path, options: &LogOptions, alive: Arc<AtomicBool>, env: &Env) -> String {
    let check = move || {
        let alive = alive.load(Ordering::Relaxed);
        Box::pin(async move { alive }) as futures::future::BoxFuture<'static, bool>
    };
    let mut log = read(path.to_owned(), options, check, env).await.unwrap();
    let mut text = String::new();
    while let Some(piece) = log.next().await {
        text.push_str(std::str::from_utf8(&piece.unwrap()).unwrap());
    }
    text
}

fn lines(range: std::ops::Range<usize>) -> String {
    range.map(|n| format!("line {n}\n")).collect()
}

#[test]
fn a_log_is_read_from_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("0.log");
    append(&path, &(0..20_000).map(record).collect::<String>());
    let sim = SimEnv::new(1);
    let env = sim.env();
    sim.block_on(async move {
        let dead = Arc::new(AtomicBool::new(false));
        let all = LogOptions::default();
        assert_eq!(
            collect(&path, &all, dead.clone(), &env).await,
            lines(0..20_000)
        );
        for tail in [0, 1, 5000] {
            let options = LogOptions {
                tail: Some(tail),
                ..all.clone()
            };
            let want = lines(20_000 - tail as usize..20_000);
            assert_eq!(collect(&path, &options, dead.clone(), &env).await, want);
            // Following a container that does not run ends, too.
            let options = LogOptions {
                follow: true,
                ..options
            };
            assert_eq!(collect(&path, &options, dead.clone(), &env).await, want);
        }
        let alive = || Box::pin(async { false }) as futures::future::BoxFuture<'static, bool>;
        let error = read("/no/such.log".into(), &all, alive, &env)
            .await
            .err()
            .unwrap();
        assert!(
            error
                .to_string()
                .starts_with("failed to open log file \"/no/such.log\"")
        );
    });
}

/// Writes a log over two rotations and a truncation while it is followed.
async fn write_and_rotate(path: &Path, alive: &AtomicBool, env: &Env) {
    let pause = || env.sleep(Duration::from_millis(300));
    for n in 10..20 {
        append(path, &record(n));
        pause().await;
    }
    for (rotation, from) in [(1, 20), (2, 40)] {
        let old = path.with_extension(format!("log.{rotation}"));
        fs::rename(path, &old).unwrap();
        // The runtime still writes into the old file.
        append(&old, &record(from));
        pause().await;
        append(&old, &record(from + 1));
        for n in from + 2..from + 20 {
            append(path, &record(n));
        }
        pause().await;
    }
    alive.store(false, Ordering::Relaxed);
    append(path, &record(60));
}

#[test]
fn a_log_is_followed_over_rotations_until_its_container_ends() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("0.log");
    append(&path, &(0..10).map(record).collect::<String>());
    let options = LogOptions {
        follow: true,
        tail: Some(5),
        ..LogOptions::default()
    };
    // By looking now and then, on virtual time.
    let sim = SimEnv::new(1);
    let env = sim.env();
    let (log, wanted) = (path.clone(), options.clone());
    sim.block_on(async move {
        let alive = Arc::new(AtomicBool::new(true));
        let (text, ()) = futures::join!(
            collect(&log, &wanted, alive.clone(), &env),
            write_and_rotate(&log, &alive, &env)
        );
        assert_eq!(text, lines(5..61));
    });
}

#[tokio::test]
async fn events_wake_who_follows() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("0.log");
    append(&path, &(0..10).map(record).collect::<String>());
    let options = LogOptions {
        follow: true,
        ..LogOptions::default()
    };
    let env = Env::tokio();
    let alive = Arc::new(AtomicBool::new(true));
    let (text, ()) = futures::join!(
        collect(&path, &options, alive.clone(), &env),
        write_and_rotate(&path, &alive, &env)
    );
    assert_eq!(text, lines(0..61));

    // Sooner than by looking.
    let check = || Box::pin(async { true }) as futures::future::BoxFuture<'static, bool>;
    let options = LogOptions {
        tail: Some(0),
        ..options
    };
    let mut log = read(path.clone(), &options, check, &env).await.unwrap();
    let start = env.now();
    let writer = async {
        env.sleep(Duration::from_millis(100)).await;
        append(&path, &record(99));
    };
    let (piece, ()) = futures::join!(log.next(), writer);
    assert_eq!(piece.unwrap().unwrap(), "line 99\n");
    assert!(env.now().since(start) < Duration::from_millis(800));
}
