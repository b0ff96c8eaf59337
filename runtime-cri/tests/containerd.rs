//! The runtime over a real containerd.

#[path = "support/containerd.rs"]
mod support;

use std::sync::Arc;

use orlop_core::conformance;
use orlop_core::conformance::runtime::Subject;
use orlop_core::env::Env;
use orlop_runtime_cri::CriRuntime;
use support::{BUSYBOX, Containerd, ECHO, isolated, missing};

/// Runs a test with a containerd.
fn with_containerd<F: Future<Output = ()>>(
    name: &str,
    body: impl FnOnce(Containerd, CriRuntime) -> F,
) {
    isolated(name, missing, |dir| {
        let containerd = Containerd::start(dir);
        let tokio = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .worker_threads(2)
            .build();
        tokio.unwrap().block_on(async {
            let runtime = CriRuntime::connect(&containerd.socket(), Env::tokio())
                .await
                .unwrap();
            body(containerd, runtime).await;
        });
    });
}

#[test]
fn keeps_the_contract() {
    with_containerd("keeps_the_contract", async |_containerd, runtime| {
        let (runtime, env) = (Arc::new(runtime), Env::tokio());
        conformance::runtime(async || {
            Subject::new(runtime.clone(), BUSYBOX, env.clone()).echo_at(ECHO)
        })
        .await;
    });
}
