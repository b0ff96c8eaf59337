//! How long rules take with many Services: all at first, then one change, then all again after a restart.
//!
//! ```text
//! service_scale [SERVICES [ENDPOINTS [NETNS]]]
//! ```
//! Writes real rules, in a network namespace of its own that it makes and removes, or in the one that is named; `.` is the one that it
//! runs in. Root is needed.
//!
//! Measured on 2026-11-23, two busy cores, Linux 6.18, nft 1.0.6, a debug build, ten endpoints a Service; `ip netns exec` is part of every
//! time:
//!
//! | Services | all at first | one endpoint changes (median of 50) | all told again, nothing changed | all anew after a restart |
//! |---|---|---|---|---|
//! | 1,000 | 0.4 s | 19 ms | 44 ms | 0.7 s |
//! | 5,000 | 2.0 s | 24–30 ms | 0.12–0.19 s | 2.0 s |
//! | 10,000 | 6.0 s | 56 ms | 0.5 s | 6.7 s |
//!
//! Beside it, the layout of Kubernetes' nftables mode (a chain for every endpoint, a map in every rule) for 5,000 Services, written out
//! and given to the same nft: 28 s on the idle machine (51 s on the busy one), and 0.16 s (1.4 s) for one change.

use std::process::Command;
use std::time::Duration;

use orlop_core::env::{Env, Moment};
use orlop_net_proxy::backend::Backend;
use orlop_net_proxy::{NftBackend, ProxyConfig, ProxyMetrics, testing};

const CHANGES: u32 = 50;

fn ip(words: &[&str]) -> std::io::Result<()> {
    Command::new("ip").args(words).status().map(drop)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut number = |default: u32| arguments.next().map_or(Ok(default), |word| word.parse());
    let (count, endpoints) = (number(5000)?, number(10)?);
    let named = arguments.next();
    let netns = named
        .clone()
        .unwrap_or_else(|| format!("service-scale-{}", std::process::id()));
    if named.is_none() {
        ip(&["netns", "add", &netns])?;
    }
    let result = measure(&netns, count, endpoints).await;
    if named.is_none() {
        ip(&["netns", "delete", &netns])?;
    }
    Ok(result?)
}

async fn measure(netns: &str, count: u32, endpoints: u32) -> Result<(), orlop_net_proxy::Error> {
    let env = Env::tokio();
    let mut config = ProxyConfig::new("node");
    config.cluster_cidrs = "10.0.0.0/7".parse().into_iter().collect();
    if netns != "." {
        config.command_prefix = ["ip", "netns", "exec", netns].map(str::to_owned).to_vec();
    }
    let mut backend = NftBackend::new(env.clone(), &config, ProxyMetrics::default());
    let since = |start: Moment| env.now().since(start);

    let all = testing::services(count, endpoints);
    let start = env.now();
    let applied = backend.apply(&all).await?;
    let took = since(start);
    println!(
        "{count} Services of {endpoints} endpoints: {took:.1?} ({} bytes of commands)",
        applied.bytes
    );

    let start = env.now();
    let applied = backend.apply(&all).await?;
    println!(
        "all of them told again, nothing changed: {:.1?} ({} bytes)",
        since(start),
        applied.bytes
    );

    let mut times: Vec<Duration> = Vec::new();
    for change in 1..=CHANGES {
        let start = env.now();
        backend
            .apply(&testing::change(change * 97 % count, endpoints, change))
            .await?;
        times.push(since(start));
    }
    times.sort();
    println!(
        "one endpoint of one Service: median {:.1?}, longest {:.1?} of {CHANGES}",
        times[times.len() / 2],
        times[times.len() - 1]
    );

    let mut restarted = NftBackend::new(env.clone(), &config, ProxyMetrics::default());
    let start = env.now();
    restarted.apply(&all).await?;
    println!("all of them anew after a restart: {:.1?}", since(start));
    restarted.cleanup().await
}
