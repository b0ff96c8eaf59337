//! How long does one change take in a table of many Services?
//!
//! Rules are real, written by nft in a network namespace of the bench's own. A change is another address of one of a Service's ten
//! endpoints, as when a pod is replaced; the others stay.
//!
//! Beside it in the same run: a new start, which writes everything (`all anew`), everything told again although nothing changed
//! (`all again, unchanged`), and the bound of who rewrites its table at every change: the kernel's own text of these rules, given back to
//! nft in one transaction (`nft -f`).
//!
//! `cargo bench --bench service_sync`; needs root, nft, ip and unshare.

#![allow(clippy::disallowed_methods, reason = "a bench measures real time")]

#[path = "../runtime-cri/tests/support/isolated.rs"]
mod isolated;
mod support;

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use criterion::{BenchmarkGroup, Criterion, measurement::WallTime};
use orlop::core::env::Env;
use orlop::net_proxy::backend::{Backend, Changes};
use orlop::net_proxy::{NftBackend, ProxyConfig, ProxyMetrics, testing};
use tokio::runtime::Runtime;

const SERVICES: [u32; 2] = [1_000, 5_000];
const ENDPOINTS: u32 = 10;

fn main() {
    let missing = || isolated::missing_tool(&["nft"]);
    isolated::isolated_program("service_sync", missing, |_| {
        let mut criterion = Criterion::default().configure_from_args();
        let runtime = support::runtime();
        let _inside = runtime.enter();
        let mut group = support::group(&mut criterion, "service_sync");
        for count in SERVICES {
            measure(&mut group, &runtime, count);
        }
        group.finish();
        criterion.final_summary();
    });
}

fn backend() -> NftBackend {
    let mut config = ProxyConfig::new("node");
    config.cluster_cidrs = "10.0.0.0/7".parse().into_iter().collect();
    NftBackend::new(Env::tokio(), &config, ProxyMetrics::default())
}

/// Applies changes that were made before the time counts.
fn apply(runtime: &Runtime, backend: &mut NftBackend, changes: &Changes) -> Duration {
    let began = Instant::now();
    let applied = runtime.block_on(backend.apply(changes));
    let elapsed = began.elapsed();
    applied.expect("rules");
    elapsed
}

fn measure(group: &mut BenchmarkGroup<'_, WallTime>, runtime: &Runtime, count: u32) {
    let all = testing::services(count, ENDPOINTS);
    let mut own = backend();
    apply(runtime, &mut own, &all);

    let mut generation = 0;
    group.bench_function(format!("one endpoint of one Service/{count}"), |bench| {
        bench.iter_custom(|rounds| {
            (0..rounds)
                .map(|_| {
                    generation += 1;
                    let changes = testing::change(generation * 97 % count, ENDPOINTS, generation);
                    apply(runtime, &mut own, &changes)
                })
                .sum()
        });
    });
    // What was changed goes back to how it was.
    apply(runtime, &mut own, &all);
    group.bench_function(format!("all again, unchanged/{count}"), |bench| {
        bench.iter_custom(|rounds| (0..rounds).map(|_| apply(runtime, &mut own, &all)).sum());
    });
    group.bench_function(format!("all anew/{count}"), |bench| {
        bench.iter_custom(|rounds| {
            (0..rounds)
                .map(|_| apply(runtime, &mut backend(), &all))
                .sum()
        });
    });
    let text = format!("flush ruleset\n{}", nft(&["list", "ruleset"], ""));
    println!(
        "{count} Services with {ENDPOINTS} endpoints each: {} bytes of rules",
        text.len()
    );
    group.bench_function(format!("nft -f/{count}"), |bench| {
        bench.iter_custom(|rounds| {
            (0..rounds)
                .map(|_| {
                    let began = Instant::now();
                    nft(&["-f", "-"], &text);
                    began.elapsed()
                })
                .sum()
        });
    });
    nft(&["flush", "ruleset"], "");
}

/// Runs nft, and returns what it says.
fn nft(arguments: &[&str], input: &str) -> String {
    let mut child = Command::new("nft")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("nft");
    let mut stdin = child.stdin.take().expect("its input");
    // It reads everything before it says anything.
    stdin.write_all(input.as_bytes()).expect("a write");
    drop(stdin);
    let output = child.wait_with_output().expect("an end");
    assert!(
        output.status.success(),
        "nft {arguments:?}: {}",
        output.status
    );
    String::from_utf8(output.stdout).expect("text")
}
