//! The simulated implementations against the suites, and so the suites against them.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;

use super::{SimulatedNetwork, SimulatedRuntime};
use crate::conformance::network::{Connects, Subject as Net, network, policy};
use crate::conformance::runtime::{Subject, runtime};
use crate::env::{Env, SimEnv, SimOptions};
use crate::network::{NetworkPlugin, PolicyEnforcer, Protocol, SandboxNetwork};
use crate::runtime::SandboxId;

fn subject(env: &Env) -> Subject {
    let simulated = SimulatedRuntime::new(env.clone());
    simulated.echo_at(7);
    Subject::new(Arc::new(simulated), "busybox:1.35", env.clone())
        .demand_everything()
        .echo_at(7)
}

#[test]
fn the_simulated_runtime_conforms_on_virtual_time() {
    for seed in 0..4 {
        let sim = SimEnv::with_options(SimOptions {
            seed,
            shuffle: seed > 0,
            ..SimOptions::default()
        });
        let env = sim.env();
        sim.block_on(async move { runtime(|| async { subject(&env) }).await });
    }
}

#[tokio::test]
async fn the_simulated_runtime_conforms_on_real_time_and_used_before() {
    let env = Env::tokio();
    let simulated = Arc::new(SimulatedRuntime::new(env.clone()));
    runtime(|| async { Subject::new(simulated.clone(), "busybox", env.clone()) }).await;
}

#[test]
fn the_simulated_network_conforms() {
    for ranges in [
        &["10.1.0.0/16"][..],
        &["10.1.0.0/24", "fd00:1::/64"],
        &["10.1.0.16/28"],
    ] {
        let ranges: Vec<_> = ranges.iter().map(|range| range.parse().unwrap()).collect();
        SimEnv::new(0).block_on(async move {
            network(|| async {
                Net::new(Arc::new(SimulatedNetwork::with_ranges(&ranges)), |name| {
                    Box::pin(async move { PathBuf::from("/run/netns").join(name) })
                })
            })
            .await;
        });
    }
}

struct Tried(SimulatedNetwork, AtomicUsize);

#[async_trait]
impl Connects for Tried {
    async fn sandbox(&self) -> (SandboxId, std::net::IpAddr) {
        let id = SandboxId::new(format!("s{}", self.1.fetch_add(1, Ordering::Relaxed)));
        let attached = self
            .0
            .attach(&SandboxNetwork::new(id.clone(), "/run/netns/s"))
            .await
            .unwrap();
        (id, attached.ips().next().unwrap())
    }

    async fn connects(
        &self,
        from: &SandboxId,
        to: std::net::IpAddr,
        protocol: Protocol,
        port: u16,
    ) -> bool {
        self.0.connects(from, to, protocol, port)
    }
}

#[test]
fn the_simulated_network_enforces_policies() {
    for range in ["10.1.0.0/24", "fd00::/120"] {
        SimEnv::new(0).block_on(policy(move || async move {
            let network = SimulatedNetwork::new(range.parse().unwrap());
            let tried: Arc<dyn Connects> = Arc::new(Tried(network.clone(), AtomicUsize::new(0)));
            (Arc::new(network) as Arc<dyn PolicyEnforcer>, tried)
        }));
    }
}

#[test]
fn a_network_runs_out_of_addresses_and_recovers() {
    let network = SimulatedNetwork::new("10.0.0.0/29".parse().unwrap());
    let sandbox = |n: usize| SandboxNetwork::new(SandboxId::new(format!("{n}")), "/run/netns/x");
    SimEnv::new(0).block_on(async move {
        // Eight addresses, less the network's, the gateway's and the broadcast address.
        for n in 0..5 {
            network.attach(&sandbox(n)).await.unwrap();
        }
        let error = network.attach(&sandbox(5)).await.unwrap_err();
        assert_eq!(error.to_string(), "no address left in 10.0.0.0/29");
        network.detach(&sandbox(3)).await.unwrap();
        let given = network.attach(&sandbox(5)).await.unwrap();
        assert_eq!(given.ips().next().unwrap().to_string(), "10.0.0.5");
    });
}

/// A suite that passes everything proves nothing: each of these breaks one promise and must be caught.
mod broken {
    use std::time::Duration;

    use super::*;
    use crate::network::{Attachment, NetworkError};
    use crate::runtime::{
        Container, ContainerConfig, ContainerFilter, ContainerId, Image, ImageId, ImageSpec,
        PullRequest, Runtime, RuntimeError, RuntimeStatus, Sandbox, SandboxConfig, SandboxFilter,
        SandboxId,
    };

    #[derive(Clone, Copy, PartialEq)]
    enum Fault {
        None,
        ForgetsLabels,
        IgnoresFilters,
        StopsNothing,
        LeavesContainers,
        PullsAnything,
    }

    struct Faulty(SimulatedRuntime, Fault);

    type Answer<T> = Result<T, RuntimeError>;

    #[async_trait]
    impl Runtime for Faulty {
        async fn status(&self) -> Answer<RuntimeStatus> {
            self.0.status().await
        }
        async fn run_sandbox(&self, config: &SandboxConfig) -> Answer<SandboxId> {
            self.0.run_sandbox(config).await
        }
        async fn stop_sandbox(&self, id: &SandboxId) -> Answer<()> {
            self.0.stop_sandbox(id).await
        }
        async fn remove_sandbox(&self, id: &SandboxId) -> Answer<()> {
            if self.1 == Fault::LeavesContainers {
                return self.0.stop_sandbox(id).await;
            }
            self.0.remove_sandbox(id).await
        }
        async fn sandboxes(&self, filter: &SandboxFilter) -> Answer<Vec<Sandbox>> {
            self.0.sandboxes(filter).await
        }
        async fn create_container(
            &self,
            sandbox: &SandboxId,
            config: &ContainerConfig,
        ) -> Answer<ContainerId> {
            let mut config = config.clone();
            if self.1 == Fault::ForgetsLabels {
                config.labels.clear();
            }
            self.0.create_container(sandbox, &config).await
        }
        async fn start_container(&self, id: &ContainerId) -> Answer<()> {
            self.0.start_container(id).await
        }
        async fn stop_container(&self, id: &ContainerId, grace: Duration) -> Answer<()> {
            if self.1 == Fault::StopsNothing {
                return Ok(());
            }
            self.0.stop_container(id, grace).await
        }
        async fn remove_container(&self, id: &ContainerId) -> Answer<()> {
            self.0.remove_container(id).await
        }
        async fn containers(&self, filter: &ContainerFilter) -> Answer<Vec<Container>> {
            let mut filter = filter.clone();
            if self.1 == Fault::IgnoresFilters {
                filter.labels.clear();
            }
            self.0.containers(&filter).await
        }
        async fn pull_image(&self, request: &PullRequest) -> Answer<ImageId> {
            if self.1 == Fault::PullsAnything {
                let pulled = self.0.pull_image(request).await;
                return Ok(pulled.unwrap_or_else(|_| ImageId::new("sha256:0")));
            }
            self.0.pull_image(request).await
        }
        async fn images(&self) -> Answer<Vec<Image>> {
            self.0.images().await
        }
        async fn remove_image(&self, image: &ImageSpec) -> Answer<()> {
            self.0.remove_image(image).await
        }
    }

    fn run(fault: Fault) {
        let sim = SimEnv::new(1);
        let env = sim.env();
        sim.block_on(async move {
            runtime(|| async {
                let faulty = Faulty(SimulatedRuntime::new(env.clone()), fault);
                Subject::new(Arc::new(faulty), "busybox:1.35", env.clone())
            })
            .await;
        });
    }

    #[test]
    fn a_runtime_with_only_what_is_required_conforms() {
        run(Fault::None);
    }

    #[test]
    #[should_panic(expected = "runtime::containers::keep_what_they_were_given")]
    fn lost_labels_are_caught() {
        run(Fault::ForgetsLabels);
    }

    #[test]
    #[should_panic(expected = "runtime::containers::filters")]
    fn ignored_filters_are_caught() {
        run(Fault::IgnoresFilters);
    }

    #[test]
    #[should_panic(expected = "runtime::containers::live_and_die")]
    fn a_stop_that_does_nothing_is_caught() {
        run(Fault::StopsNothing);
    }

    #[test]
    #[should_panic(expected = "runtime::sandboxes::")]
    fn a_removal_that_leaves_things_is_caught() {
        run(Fault::LeavesContainers);
    }

    #[test]
    #[should_panic(expected = "runtime::images::bad_names_are_refused")]
    fn bad_names_that_are_pulled_are_caught() {
        run(Fault::PullsAnything);
    }

    struct SameForAll;

    #[async_trait]
    impl NetworkPlugin for SameForAll {
        async fn attach(&self, sandbox: &SandboxNetwork) -> Result<Attachment, NetworkError> {
            SimulatedNetwork::new("10.1.0.0/24".parse().unwrap())
                .attach(sandbox)
                .await
        }
        async fn detach(&self, _: &SandboxNetwork) -> Result<(), NetworkError> {
            Ok(())
        }
    }

    #[test]
    #[should_panic(expected = "network::gives_everyone_other_addresses")]
    fn one_address_for_all_is_caught() {
        SimEnv::new(0).block_on(network(|| async {
            Net::new(Arc::new(SameForAll), |_| Box::pin(async { PathBuf::new() }))
        }));
    }

    struct Deaf;

    #[async_trait]
    impl PolicyEnforcer for Deaf {
        async fn apply(&self, _: &[crate::network::EndpointPolicy]) -> Result<(), NetworkError> {
            Ok(())
        }
    }

    #[test]
    #[should_panic(expected = "policy::closed_by_no_rules")]
    fn an_enforcer_that_does_nothing_is_caught() {
        SimEnv::new(0).block_on(policy(|| async {
            let network = SimulatedNetwork::new("10.1.0.0/24".parse().unwrap());
            let tried: Arc<dyn Connects> = Arc::new(Tried(network, AtomicUsize::new(0)));
            (Arc::new(Deaf) as Arc<dyn PolicyEnforcer>, tried)
        }));
    }
}
