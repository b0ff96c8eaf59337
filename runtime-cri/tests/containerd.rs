//! The runtime over a real containerd.

#[path = "support/containerd.rs"]
mod support;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use orlop_core::conformance;
use orlop_core::conformance::runtime::Subject;
use orlop_core::env::Env;
use orlop_core::runtime::{
    AttachRequest, ByteStream, Container, ContainerConfig, ContainerFilter, ContainerId,
    ContainerState, ExecRequest, ImageSpec, NamespaceMode, PullRequest, RegistryAuth, Resources,
    Runtime, RuntimeError, SandboxConfig, SandboxFilter, SandboxId, TerminalSize,
};
use orlop_runtime_cri::{CriError, CriRuntime};
use support::{BUSYBOX, Containerd, ECHO, PRIVATE, isolated, missing, registry};

/// A containerd and a runtime over it.
struct Node {
    containerd: Containerd,
    runtime: CriRuntime,
    env: Env,
}

/// Runs a test with a containerd of its own.
fn on_node(test: &str, body: impl AsyncFnOnce(Node)) {
    isolated(test, missing, |dir| {
        let containerd = Containerd::start(dir);
        let tokio = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .worker_threads(2)
            .build();
        tokio.unwrap().block_on(async {
            let env = Env::tokio();
            let runtime = CriRuntime::new(&containerd.socket(), env.clone()).unwrap();
            let node = Node {
                containerd,
                runtime,
                env,
            };
            node.ready().await;
            body(node).await;
        });
    });
}

impl Node {
    /// Waits until the engine knows its containers again.
    async fn ready(&self) {
        for _ in 0..300 {
            let all = ContainerFilter::default();
            if self.runtime.containers(&all).await.is_ok() {
                return;
            }
            self.env.sleep(Duration::from_millis(50)).await;
        }
        panic!("the engine does not come back");
    }

    async fn sandbox(&self, name: &str) -> SandboxId {
        let mut config = SandboxConfig::new("default", name, format!("uid-{name}"));
        config.log_directory = Some(self.containerd.dir().join("pods").join(name));
        self.runtime.run_sandbox(&config).await.unwrap()
    }

    async fn create(
        &self,
        sandbox: &SandboxId,
        name: &str,
        command: &[&str],
        adapt: impl FnOnce(&mut ContainerConfig),
    ) -> ContainerId {
        self.runtime
            .pull_image(&PullRequest::new(BUSYBOX))
            .await
            .unwrap();
        let mut config = ContainerConfig::new(name, ImageSpec::new(BUSYBOX));
        config.command = command.iter().map(|word| (*word).to_owned()).collect();
        adapt(&mut config);
        self.runtime
            .create_container(sandbox, &config)
            .await
            .unwrap()
    }

    async fn start(
        &self,
        sandbox: &SandboxId,
        name: &str,
        command: &[&str],
        adapt: impl FnOnce(&mut ContainerConfig),
    ) -> ContainerId {
        let id = self.create(sandbox, name, command, adapt).await;
        self.runtime.start_container(&id).await.unwrap();
        id
    }

    async fn exited(&self, id: &ContainerId) -> Container {
        for _ in 0..600 {
            let container = self.runtime.container(id).await.unwrap();
            if container.state == ContainerState::Exited {
                return container;
            }
            self.env.sleep(Duration::from_millis(50)).await;
        }
        panic!("{id} did not end");
    }

    async fn sh(&self, id: &ContainerId, script: &str) -> String {
        let command = ["sh", "-c", script].map(str::to_owned);
        let output = self.runtime.exec_sync(id, &command).await.unwrap();
        String::from_utf8(output.stdout).unwrap()
    }
}

async fn read_until(stream: &mut ByteStream, end: &str) -> String {
    let mut all = String::new();
    while !all.contains(end) {
        let Some(bytes) = stream.next().await else {
            panic!("the stream ended after {all:?}");
        };
        all.push_str(&String::from_utf8_lossy(&bytes.unwrap()));
    }
    all
}

#[test]
fn keeps_the_contract() {
    on_node("keeps_the_contract", async |node| {
        let (runtime, env) = (Arc::new(node.runtime.clone()), node.env.clone());
        conformance::runtime(async || {
            Subject::new(runtime.clone(), BUSYBOX, env.clone()).echo_at(ECHO)
        })
        .await;
        // What the suite passes over where it is not supported.
        assert_eq!(
            node.runtime.events().await.err(),
            Some(RuntimeError::Unsupported("events"))
        );
        assert_eq!(
            node.runtime.cgroup_driver().await,
            Err(RuntimeError::Unsupported("cgroup_driver"))
        );
        let cidrs = ["10.244.1.0/24".parse().unwrap()];
        node.runtime.set_pod_cidrs(&cidrs).await.unwrap();
        let filesystems = node.runtime.image_filesystems().await.unwrap();
        assert!(
            filesystems.images[0]
                .mountpoint
                .starts_with(node.containerd.dir())
        );
    });
}

#[test]
fn an_engine_that_restarts_is_found_again() {
    on_node(
        "an_engine_that_restarts_is_found_again",
        async |mut node| {
            let sandbox = node.sandbox("web").await;
            let id = node
                .start(&sandbox, "main", &["sleep", "100000"], |_| {})
                .await;
            let short = node
                .start(&sandbox, "short", &["sh", "-c", "sleep 2; exit 3"], |_| {})
                .await;
            let before = node
                .runtime
                .containers(&ContainerFilter::default())
                .await
                .unwrap();
            node.containerd.kill();
            let unavailable = |error: RuntimeError| matches!(error, RuntimeError::Unavailable(_));
            assert!(unavailable(node.runtime.status().await.unwrap_err()));
            assert!(unavailable(node.runtime.container(&id).await.unwrap_err()));
            assert!(unavailable(
                node.runtime
                    .stop_container(&id, Duration::ZERO)
                    .await
                    .unwrap_err()
            ));
            let gone = CriRuntime::connect(&node.containerd.socket(), node.env.clone()).await;
            assert!(matches!(gone, Err(CriError::Engine { .. })), "{gone:?}");
            node.env.sleep(Duration::from_secs(2)).await;
            node.containerd.run();
            node.ready().await;
            // What ran runs, and what ended meanwhile is told.
            let after = node
                .runtime
                .containers(&ContainerFilter::default())
                .await
                .unwrap();
            assert_eq!(before[0], after[0]);
            assert_eq!(node.exited(&short).await.exit.unwrap().code, 3);
            assert_eq!(node.sh(&id, "echo here").await, "here\n");
            // A sandbox that another process made is as good as one's own: containers are made in it, with their logs.
            let other = CriRuntime::new(&node.containerd.socket(), node.env.clone()).unwrap();
            let adopted = other.sandboxes(&SandboxFilter::default()).await.unwrap();
            assert_eq!(adopted.len(), 1);
            assert!(
                adopted[0].annotations.is_empty(),
                "{:?}",
                adopted[0].annotations
            );
            let mut config = ContainerConfig::new("late", ImageSpec::new(BUSYBOX));
            config.command = vec!["true".to_owned()];
            config.log_path = Some("late.log".into());
            let late = other.create_container(&sandbox, &config).await.unwrap();
            let log = other.container(&late).await.unwrap().log_path;
            assert_eq!(log, Some(node.containerd.dir().join("pods/web/late.log")));
            // In the midst of a call, too.
            let command = ["sleep", "30"].map(str::to_owned);
            let (runtime, victim) = (node.runtime.clone(), id.clone());
            let running = async move { runtime.exec_sync(&victim, &command).await };
            let kill = async {
                node.env.sleep(Duration::from_millis(500)).await;
                node.containerd.kill();
                node.containerd.run();
            };
            let (broken, ()) = futures::join!(running, kill);
            assert!(unavailable(broken.unwrap_err()));
            node.ready().await;
            node.runtime.remove_sandbox(&sandbox).await.unwrap();
            assert_eq!(
                node.runtime
                    .sandboxes(&SandboxFilter::default())
                    .await
                    .unwrap(),
                []
            );
            assert_eq!(
                node.runtime
                    .containers(&ContainerFilter::default())
                    .await
                    .unwrap(),
                []
            );
        },
    );
}

#[test]
fn ends_are_told_with_their_reasons() {
    on_node("ends_are_told_with_their_reasons", async |node| {
        let sandbox = node.sandbox("ends").await;
        let missing = node
            .create(&sandbox, "missing", &["/no/such/program"], |_| {})
            .await;
        let refused = node.runtime.start_container(&missing).await.unwrap_err();
        let RuntimeError::Failed(why) = refused else {
            panic!("{refused:?}");
        };
        assert!(why.contains("no such file or directory"), "{why}");
        let exit = node
            .runtime
            .container(&missing)
            .await
            .unwrap()
            .exit
            .unwrap();
        assert_eq!((exit.code, exit.reason.as_str()), (128, "StartError"));
        let eats = "a=x; while :; do a=$a$a$a$a; done";
        let hungry = node
            .start(&sandbox, "hungry", &["sh", "-c", eats], |config| {
                config.resources.memory_limit = Some(32 << 20);
            })
            .await;
        let end = node.exited(&hungry).await;
        // The reason may come a moment after the end.
        let mut exit = end.exit.unwrap();
        for _ in 0..40 {
            if exit.reason == "OOMKilled" {
                break;
            }
            node.env.sleep(Duration::from_millis(50)).await;
            let listed = node
                .runtime
                .containers(&ContainerFilter::of(&sandbox))
                .await
                .unwrap();
            let listed = listed.into_iter().find(|one| one.id == hungry).unwrap();
            exit = listed.exit.unwrap();
        }
        assert_eq!((exit.code, exit.reason.as_str()), (137, "OOMKilled"));
        // Who heeds the signal ends by itself, who does not is killed after the grace.
        let polite = "trap 'exit 5' TERM; while :; do sleep 0.1; done";
        let polite = node
            .start(&sandbox, "polite", &["sh", "-c", polite], |_| {})
            .await;
        let deaf = "trap '' TERM; while :; do sleep 0.1; done";
        let deaf = node
            .start(&sandbox, "deaf", &["sh", "-c", deaf], |_| {})
            .await;
        node.env.sleep(Duration::from_millis(300)).await;
        let began = node.env.now();
        node.runtime
            .stop_container(&polite, Duration::from_secs(30))
            .await
            .unwrap();
        assert!(node.env.now().since(began) < Duration::from_secs(10));
        assert_eq!(
            node.runtime
                .container(&polite)
                .await
                .unwrap()
                .exit
                .unwrap()
                .code,
            5
        );
        let began = node.env.now();
        node.runtime
            .stop_container(&deaf, Duration::from_secs(2))
            .await
            .unwrap();
        let took = node.env.now().since(began);
        assert!(
            took >= Duration::from_secs(2) && took < Duration::from_secs(10),
            "{took:?}"
        );
        assert_eq!(
            node.runtime
                .container(&deaf)
                .await
                .unwrap()
                .exit
                .unwrap()
                .code,
            137
        );
        // Of what it wrote there is a log.
        let logs = node.start(
            &sandbox,
            "log",
            &["sh", "-c", "echo out; echo err >&2"],
            |config| {
                config.log_path = Some("log.log".into());
            },
        );
        let logged = node.exited(&logs.await).await;
        let log = std::fs::read_to_string(logged.log_path.unwrap()).unwrap();
        assert!(
            log.contains(" stdout F out\n") && log.contains(" stderr F err\n"),
            "{log}"
        );
        node.runtime.remove_sandbox(&sandbox).await.unwrap();
    });
}

#[test]
fn pulls_tell_why_they_fail() {
    on_node("pulls_tell_why_they_fail", async |node| {
        let pull = async |image: &str, auth: Option<RegistryAuth>| {
            let request = PullRequest {
                auth,
                ..PullRequest::new(image)
            };
            node.runtime.pull_image(&request).await
        };
        let none = pull("images.test/none:1", None).await;
        assert_eq!(
            none,
            Err(RuntimeError::ImageNotFound("images.test/none:1".to_owned()))
        );
        let denied = pull(PRIVATE, None).await;
        assert!(
            matches!(denied, Err(RuntimeError::Denied { .. })),
            "{denied:?}"
        );
        let login = |password: &str| RegistryAuth {
            username: registry::LOGIN.0.to_owned(),
            password: password.to_owned(),
            ..RegistryAuth::default()
        };
        let denied = pull(PRIVATE, Some(login("guess"))).await;
        assert!(
            matches!(denied, Err(RuntimeError::Denied { .. })),
            "{denied:?}"
        );
        let id = pull(PRIVATE, Some(login(registry::LOGIN.1))).await.unwrap();
        let image = node
            .runtime
            .image(&ImageSpec::from(&id))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(image.user, Some(orlop_core::runtime::ImageUser::Id(65534)));
        assert!(image.size > 100_000 && image.tags == [PRIVATE], "{image:?}");
        let unreachable = pull("127.0.0.1:1/web:1", None).await;
        assert!(
            matches!(unreachable, Err(RuntimeError::Unavailable(_))),
            "{unreachable:?}"
        );
        let nowhere = pull("no-such-host.invalid/web:1", None).await;
        assert!(
            matches!(nowhere, Err(RuntimeError::Unavailable(_))),
            "{nowhere:?}"
        );
        for name in ["", "UPPER CASE", "a//b"] {
            let bad = pull(name, None).await;
            assert!(
                matches!(bad, Err(RuntimeError::InvalidRequest(_))),
                "{bad:?}"
            );
        }
        // Every pull asks the registry again whether the tag still means the same.
        let asked = node.containerd.registry().asked();
        pull(BUSYBOX, None).await.unwrap();
        pull(BUSYBOX, None).await.unwrap();
        assert!(node.containerd.registry().asked() >= asked + 2);
    });
}

#[test]
fn streams_carry_terminals_inputs_and_ports() {
    on_node("streams_carry_terminals_inputs_and_ports", async |node| {
        let sandbox = node.sandbox("streams").await;
        let id = node
            .start(&sandbox, "main", &["sleep", "100000"], |_| {})
            .await;
        // A terminal, and its size.
        let request = ExecRequest {
            tty: true,
            stderr: false,
            ..ExecRequest::new(["sh"]).with_stdin()
        };
        let mut shell = node.runtime.exec(&id, &request).await.unwrap();
        let (mut stdin, mut stdout) = (shell.stdin.take().unwrap(), shell.stdout.take().unwrap());
        let mut resize = shell.resize.take().unwrap();
        for (width, height) in [(91, 37), (133, 44)] {
            resize.send(TerminalSize { width, height }).await.unwrap();
            // The size and the input are different streams, which may overtake each other.
            node.env.sleep(Duration::from_millis(200)).await;
            stdin.send(Bytes::from("stty size\n")).await.unwrap();
            read_until(&mut stdout, &format!("{height} {width}\r\n")).await;
        }
        stdin.send(Bytes::from("exit 9\n")).await.unwrap();
        while let Some(Ok(_)) = stdout.next().await {}
        assert_eq!(shell.exit.await, Ok(9));
        // Two outputs apart, and an input that ends alone.
        let command = ["sh", "-c", "sort; echo sorted >&2; exit 4"];
        let sort = node
            .runtime
            .exec(&id, &ExecRequest::new(command).with_stdin())
            .await
            .unwrap();
        let (mut stdin, stdout) = (sort.stdin.unwrap(), sort.stdout.unwrap());
        stdin.send(Bytes::from("b\na\n")).await.unwrap();
        stdin.close().await.unwrap();
        let collect = |stream: ByteStream| async {
            let chunks: Vec<_> = stream.collect().await;
            let chunks = chunks.into_iter().map(|chunk| chunk.unwrap().to_vec());
            String::from_utf8(chunks.flatten().collect()).unwrap()
        };
        let (out, err) = futures::join!(collect(stdout), collect(sort.stderr.unwrap()));
        assert_eq!(
            (out.as_str(), err.as_str(), sort.exit.await),
            ("a\nb\n", "sorted\n", Ok(4))
        );
        // A program that is missing.
        let missing = node
            .runtime
            .exec(&id, &ExecRequest::new(["/no/such/program"]))
            .await;
        let exit = missing.unwrap().exit.await;
        assert!(matches!(exit, Err(RuntimeError::Failed(_))), "{exit:?}");
        // Joining a program that greets who comes.
        let echo = "while read line; do echo \"<$line>\"; done; exit 8";
        let echo = node
            .start(&sandbox, "echo", &["sh", "-c", echo], |config| {
                (config.stdin, config.stdin_once) = (true, true);
            })
            .await;
        let request = AttachRequest {
            stdin: true,
            stdout: true,
            stderr: true,
            tty: false,
        };
        let mut joined = node.runtime.attach(&echo, &request).await.unwrap();
        let mut stdin = joined.stdin.take().unwrap();
        stdin.send(Bytes::from("one\n")).await.unwrap();
        assert_eq!(
            read_until(joined.stdout.as_mut().unwrap(), "\n").await,
            "<one>\n"
        );
        stdin.close().await.unwrap();
        assert_eq!(joined.exit.await, Ok(8));
        // A port with somebody behind it, much through it, and one with nobody.
        let mut port = node.runtime.port_forward(&sandbox, ECHO).await.unwrap();
        const MUCH: usize = 1 << 20;
        let send = async {
            for _ in 0..MUCH / (16 << 10) {
                port.send
                    .send(Bytes::from(vec![7; 16 << 10]))
                    .await
                    .unwrap();
            }
        };
        let receive = async {
            let mut left = MUCH;
            while left > 0 {
                left -= port.receive.next().await.unwrap().unwrap().len();
            }
        };
        futures::join!(send, receive);
        let mut closed = node.runtime.port_forward(&sandbox, 9).await.unwrap();
        assert_eq!(
            closed.receive.next().await,
            Some(Err(RuntimeError::Refused(9)))
        );
        assert!(closed.receive.next().await.is_none());
        node.runtime.remove_sandbox(&sandbox).await.unwrap();
    });
}

#[test]
fn commands_end_with_who_waits_for_them() {
    on_node("commands_end_with_who_waits_for_them", async |node| {
        let sandbox = node.sandbox("commands").await;
        let id = node
            .start(&sandbox, "main", &["sleep", "100000"], |_| {})
            .await;
        let command = ["sleep", "4711"].map(str::to_owned);
        let dropped = node.runtime.exec_sync(&id, &command);
        assert!(
            node.env
                .timeout(Duration::from_secs(1), dropped)
                .await
                .is_err()
        );
        let mut left = String::new();
        for _ in 0..50 {
            left = node.sh(&id, "ps | grep '[4]711'; true").await;
            if left.is_empty() {
                break;
            }
            node.env.sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(left, "", "the command goes on");
        // Much output is kept as far as it may be, and the rest does not stop the command.
        let much = ["sh", "-c", "yes | head -c 12000000; exit 3"].map(str::to_owned);
        let much = node.runtime.exec_sync(&id, &much).await.unwrap();
        assert_eq!((much.stdout.len(), much.code), (12_000_000, 3));
        node.runtime.remove_sandbox(&sandbox).await.unwrap();
    });
}

#[test]
fn limits_and_uses_are_told() {
    on_node("limits_and_uses_are_told", async |node| {
        let sandbox = node.sandbox("limits").await;
        let id = node
            .start(&sandbox, "main", &["sleep", "100000"], |config| {
                config.resources.memory_limit = Some(64 << 20);
            })
            .await;
        let other = node
            .start(&sandbox, "other", &["sleep", "100000"], |_| {})
            .await;
        let update = Resources {
            memory_limit: Some(96 << 20),
            cpu_shares: Some(512),
            ..Resources::default()
        };
        node.runtime.update_container(&id, &update).await.unwrap();
        let limit = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max";
        let limit = node.sh(&id, &format!("{limit} 2>/dev/null; true")).await;
        assert_eq!(limit.trim(), (96 << 20).to_string());
        let stats = node
            .runtime
            .sandbox_stats(&SandboxFilter::default())
            .await
            .unwrap();
        assert_eq!(stats.len(), 1);
        let uses: Vec<_> = stats[0]
            .containers
            .iter()
            .map(|one| one.id.clone())
            .collect();
        assert_eq!(uses.len(), 2);
        assert!(uses.contains(&id) && uses.contains(&other));
        assert!(
            stats[0].cpu.is_some() && stats[0].memory.is_some(),
            "{:?}",
            stats[0]
        );
        assert_eq!(stats[0].metadata.name, "limits");
        for container in &stats[0].containers {
            let left = container
                .memory
                .as_ref()
                .and_then(|memory| memory.available);
            assert_eq!(left.is_some(), container.id == id, "{container:?}");
        }
        // In the host's network, and with process ids of its own.
        let mut config = SandboxConfig::new("default", "host", "uid-host");
        config.hostname.clear();
        config.security.namespaces.network = NamespaceMode::Node;
        config.security.namespaces.pid = NamespaceMode::Container;
        let host = node.runtime.run_sandbox(&config).await.unwrap();
        let init = node
            .start(&host, "main", &["sleep", "100000"], |config| {
                config.security.namespaces.network = NamespaceMode::Node;
                config.security.namespaces.pid = NamespaceMode::Container;
            })
            .await;
        assert!(node.sh(&init, "ip link").await.contains("cni0"));
        assert_eq!(
            node.sh(&init, "cat /proc/1/cmdline").await,
            "sleep\u{0}100000\u{0}"
        );
        for sandbox in [sandbox, host] {
            node.runtime.remove_sandbox(&sandbox).await.unwrap();
        }
    });
}

#[test]
fn lists_of_a_node_at_rest_are_one_call() {
    on_node("lists_of_a_node_at_rest_are_one_call", async |node| {
        let sandbox = node.sandbox("many").await;
        for n in 0..50 {
            node.start(&sandbox, &format!("c{n}"), &["sleep", "100000"], |_| {})
                .await;
        }
        let time = async |what: &str, times: u32| {
            let began = node.env.now();
            for _ in 0..times {
                let all = node
                    .runtime
                    .containers(&ContainerFilter::default())
                    .await
                    .unwrap();
                assert_eq!(all.len(), 50);
                assert!(
                    all.iter()
                        .all(|one| one.started.is_some() && one.created <= one.started.unwrap())
                );
            }
            let took = node.env.now().since(began) / times;
            println!("{what}: {took:?}");
            took
        };
        let first = time("the first list of 50 containers", 1).await;
        let next = time("the next", 50).await;
        assert!(
            next < first,
            "a list costs as much as the first one: {next:?} and {first:?}"
        );
        let id = node
            .runtime
            .containers(&ContainerFilter::default())
            .await
            .unwrap()[0]
            .id
            .clone();
        let began = node.env.now();
        for _ in 0..10 {
            assert_eq!(node.sh(&id, "echo x").await, "x\n");
        }
        println!("a command: {:?}", node.env.now().since(began) / 10);
        node.runtime.remove_sandbox(&sandbox).await.unwrap();
    });
}
