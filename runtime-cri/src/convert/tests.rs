use bytes::Bytes;
use orlop_core::network::{PortMapping, Protocol};
use orlop_core::runtime::{
    ContainerConfig, ContainerState, DnsConfig, EnvVar, Exit, ImageSpec, Mount, MountPropagation,
    MountSource, NamespaceMode, Resources, SandboxConfig, SandboxState, Signal, UserNamespace,
};
use prost::Message;

use super::*;

fn busy_sandbox() -> SandboxConfig {
    let mut config = SandboxConfig::new("default", "web-0", "1f0e");
    config.log_directory = Some("/var/log/pods/web".into());
    config.dns = Some(DnsConfig {
        servers: vec!["10.96.0.10".to_owned()],
        searches: vec!["svc.cluster.local".to_owned()],
        options: vec!["ndots:5".to_owned()],
    });
    config.ports = vec![PortMapping {
        protocol: Protocol::Udp,
        container_port: 53,
        host_port: 5353,
        host_ip: Some("127.0.0.1".parse().unwrap()),
    }];
    config.labels = [("app".to_owned(), "web".to_owned())].into();
    config.annotations = [("note".to_owned(), "kept".to_owned())].into();
    config.cgroup_parent = "/kubepods/pod1f0e".to_owned();
    config.security.namespaces.pid = NamespaceMode::Container;
    config.security.namespaces.user = UserNamespace::Pod {
        uids: vec![IdMapping {
            host: 65536,
            container: 0,
            length: 65536,
        }],
        gids: Vec::new(),
    };
    config.security.identity.group = Some(5);
    config
}

fn status_of(config: &cri::PodSandboxConfig, state: cri::PodSandboxState) -> cri::PodSandboxStatus {
    let linux = config.linux.clone().unwrap();
    cri::PodSandboxStatus {
        id: "5a".to_owned(),
        metadata: config.metadata.clone(),
        state: state.into(),
        created_at: 1_000_000_001,
        network: Some(cri::PodSandboxNetworkStatus {
            ip: "10.244.1.2".to_owned(),
            additional_ips: vec![cri::PodIp {
                ip: "fd00::2".to_owned(),
            }],
        }),
        linux: Some(cri::LinuxPodSandboxStatus {
            namespaces: Some(cri::SharedNamespaces {
                options: linux.security_context.unwrap().namespace_options,
            }),
        }),
        labels: config.labels.clone(),
        annotations: config.annotations.clone(),
        runtime_handler: String::new(),
    }
}

#[test]
fn a_sandbox_comes_back_as_it_was_made() {
    let config = busy_sandbox();
    let message = sandbox_config(&config).unwrap();
    let message = cri::PodSandboxConfig::decode(&message.encode_to_vec()[..]).unwrap();
    let status = status_of(&message, cri::PodSandboxState::Ready);
    // What containers are made with is what the sandbox was made with.
    assert_eq!(made_with(&status), message);
    let sandbox = sandbox_looked_up(status);
    assert_eq!(sandbox.metadata, config.metadata);
    assert_eq!(sandbox.labels, config.labels);
    assert_eq!(sandbox.annotations, config.annotations);
    assert_eq!(sandbox.namespaces, config.security.namespaces);
    let addresses: Vec<_> = sandbox.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["10.244.1.2", "fd00::2"]);
    let port = &message.port_mappings[0];
    assert_eq!(
        (port.protocol(), port.host_ip.as_str()),
        (cri::Protocol::Udp, "127.0.0.1")
    );
    // A group without a user is refused by engines.
    let security = message.linux.unwrap().security_context.unwrap();
    assert_eq!(security.run_as_group, None);
}

#[test]
fn only_a_ready_sandbox_in_a_network_of_its_own_has_addresses() {
    let mut config = busy_sandbox();
    let message = sandbox_config(&config).unwrap();
    let stopped = sandbox_looked_up(status_of(&message, cri::PodSandboxState::NotReady));
    assert_eq!(
        (stopped.state, stopped.addresses),
        (SandboxState::NotReady, Vec::new())
    );
    config.security.namespaces.network = NamespaceMode::Node;
    let message = sandbox_config(&config).unwrap();
    let host = sandbox_looked_up(status_of(&message, cri::PodSandboxState::Ready));
    assert_eq!(host.addresses, Vec::<std::net::IpAddr>::new());
}

#[test]
fn a_container_is_said_in_full() {
    let mut config = ContainerConfig::new("web", ImageSpec::new("sha256:1"));
    config.env = vec![EnvVar {
        name: "RAW".to_owned(),
        value: Bytes::from_static(&[0xff, 0]),
    }];
    let image = Mount {
        source: MountSource::Image {
            image: ImageSpec::new("example/data:1"),
            sub_path: "x".to_owned(),
        },
        propagation: MountPropagation::HostToContainer,
        ..Mount::host("", "/data").read_only()
    };
    config.mounts = vec![Mount::host("/srv", "/srv"), image];
    config.stop_signal = Signal::parse("SIGUSR2");
    config.resources = Resources {
        cpu_quota: Some(-1),
        memory_limit: Some(1 << 30),
        oom_score_adj: Some(-998),
        hugepages: [("2MB".to_owned(), 4 << 20)].into(),
        ..Resources::default()
    };
    let message = container_config(&config).unwrap();
    let message = cri::ContainerConfig::decode(&message.encode_to_vec()[..]).unwrap();
    assert_eq!(message.stop_signal, 30);
    assert_eq!(message.envs[0].value, config.env[0].value);
    let status = cri::ContainerStatus {
        state: cri::ContainerState::Exited.into(),
        exit_code: 3,
        started_at: 5,
        finished_at: 6,
        mounts: message.mounts,
        stop_signal: message.stop_signal,
        image: Some(cri::ImageSpec {
            image: "example.org/web:1".to_owned(),
            ..cri::ImageSpec::default()
        }),
        image_ref: "sha256:1".to_owned(),
        resources: Some(cri::ContainerResources {
            linux: message.linux.unwrap().resources,
        }),
        ..cri::ContainerStatus::default()
    };
    let item = cri::Container {
        id: "c".to_owned(),
        image: Some(cri::ImageSpec {
            image: "sha256:1".to_owned(),
            ..cri::ImageSpec::default()
        }),
        image_ref: "sha256:1".to_owned(),
        ..cri::Container::default()
    };
    let container = looked_up(listed(item), status);
    // It was made from an id, and its image has a name.
    assert_eq!(container.image.image, "example.org/web:1");
    assert_eq!(container.state, ContainerState::Exited);
    assert_eq!(container.mounts, config.mounts);
    assert_eq!(container.resources, Some(config.resources));
    assert_eq!(Some(container.stop_signal), config.stop_signal);
    assert_eq!(container.image_id.as_str(), "sha256:1");
    // Where the engine gives no reason, the code tells it.
    let exit = Exit {
        code: 3,
        reason: "Error".to_owned(),
        message: String::new(),
    };
    assert_eq!(container.exit, Some(exit));
}

#[test]
fn a_path_must_be_text() {
    use std::os::unix::ffi::OsStrExt;
    let odd = std::ffi::OsStr::from_bytes(&[b'/', 0xff]);
    let mut config = ContainerConfig::new("web", ImageSpec::new("x"));
    config.mounts = vec![Mount::host(odd, "/data")];
    assert!(matches!(
        container_config(&config),
        Err(RuntimeError::InvalidRequest(_))
    ));
}

#[test]
fn an_older_engine_has_the_default_handler() {
    let status = runtime_status(
        cri::VersionResponse::default(),
        cri::StatusResponse::default(),
    );
    assert_eq!(status.handlers.len(), 1);
    assert_eq!(status.handlers[0].name, "");
}

#[test]
fn a_sandbox_uses_what_its_containers_use() {
    let number = |value| Some(cri::UInt64Value { value });
    let of = |id: &str, cpu, memory, rss| cri::ContainerStats {
        attributes: Some(cri::ContainerAttributes {
            id: id.to_owned(),
            ..cri::ContainerAttributes::default()
        }),
        cpu: Some(cri::CpuUsage {
            timestamp: cpu,
            usage_core_nano_seconds: number(cpu as u64),
            ..cri::CpuUsage::default()
        }),
        memory: Some(cri::MemoryUsage {
            timestamp: cpu,
            working_set_bytes: number(memory),
            usage_bytes: number(memory),
            rss_bytes: rss,
            ..cri::MemoryUsage::default()
        }),
        ..cri::ContainerStats::default()
    };
    let containers = vec![
        container_stats(of("a", 10, 100, number(7))),
        container_stats(of("b", 20, 200, None)),
    ];
    let message = sandbox_config(&busy_sandbox()).unwrap();
    let sandbox = sandbox_looked_up(status_of(&message, cri::PodSandboxState::Ready));
    let stats = of_containers(sandbox, containers);
    let (cpu, memory) = (stats.cpu.unwrap(), stats.memory.unwrap());
    assert_eq!(
        (cpu.usage_core_nanoseconds, cpu.at.as_nanosecond()),
        (30, 20)
    );
    assert_eq!((memory.working_set, memory.usage), (300, Some(300)));
    // What is not known of one is not known of all.
    assert_eq!(memory.rss, None);
}
