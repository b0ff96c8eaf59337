use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use k8s_openapi::api::core::v1::Pod;
use orlop_core::env::{Env, SimEnv};
use orlop_core::runtime::CgroupDriver;
use serde_json::{Value, json};

use super::name::{CgroupName, uid_of};
use super::systemd::Systemd;
use super::*;
use crate::config::KubeletConfig;
use crate::parts::Cgroups;

fn pod(spec: Value) -> Pod {
    pod_of("1f0e-22", spec)
}

fn pod_of(uid: &str, spec: Value) -> Pod {
    let pod =
        json!({"metadata": {"name": "web", "namespace": "default", "uid": uid}, "spec": spec});
    serde_json::from_value(pod).unwrap()
}

fn asks(requests: Value, limits: Value) -> Value {
    json!({"name": "c", "resources": {"requests": requests, "limits": limits}})
}

fn config() -> KubeletConfig {
    KubeletConfig::new("node")
}

#[test]
fn amounts_become_the_kernels_numbers() {
    for (milli, shares) in [
        (0, 2),
        (1, 2),
        (2, 2),
        (100, 102),
        (1000, 1024),
        (500_000, 262_144),
    ] {
        assert_eq!(cpu_shares(milli), shares, "{milli}");
    }
    for (milli, period, quota) in [
        (0, 100_000, None),
        (1, 100_000, Some(1000)),
        (500, 100_000, Some(50_000)),
        (2500, 100_000, Some(250_000)),
        (500, 10_000, Some(5000)),
    ] {
        assert_eq!(cpu_quota(milli, period), quota, "{milli} in {period}");
    }
    for (shares, weight) in [
        (0, 1),
        (2, 1),
        (1024, 100),
        (262_144, 10_000),
        (1 << 30, 10_000),
    ] {
        assert_eq!(cpu_weight(shares), weight, "{shares}");
    }
    for (bytes, name) in [
        (2 << 20, "2MB"),
        (1 << 30, "1GB"),
        (64 << 10, "64KB"),
        (1000, "1000B"),
    ] {
        assert_eq!(page_size_name(bytes), name);
    }
}

#[test]
fn a_pods_class_is_that_of_what_it_asks_for() {
    let both = json!({"cpu": "1", "memory": "1Gi"});
    let table = [
        (json!({"containers": [{"name": "c"}]}), QosClass::BestEffort),
        (
            json!({"containers": [asks(json!({}), json!({}))]}),
            QosClass::BestEffort,
        ),
        (
            json!({"containers": [asks(json!({"cpu": "0"}), json!({}))]}),
            QosClass::BestEffort,
        ),
        (
            json!({"containers": [asks(json!({"ephemeral-storage": "1Gi"}), json!({}))]}),
            QosClass::BestEffort,
        ),
        (
            json!({"containers": [asks(json!({"cpu": "1"}), json!({}))]}),
            QosClass::Burstable,
        ),
        (
            json!({"containers": [asks(both.clone(), both.clone())]}),
            QosClass::Guaranteed,
        ),
        (
            json!({"containers": [asks(json!({"cpu": "1000m", "memory": "1024Mi"}), both.clone())]}),
            QosClass::Guaranteed,
        ),
        (
            json!({"containers": [asks(both.clone(), both.clone()), {"name": "d"}]}),
            QosClass::Burstable,
        ),
        (
            json!({"containers": [asks(both.clone(), both.clone())], "initContainers": [{"name": "i"}]}),
            QosClass::Burstable,
        ),
        (
            json!({"containers": [{"name": "c"}], "resources": {"requests": both, "limits": both}}),
            QosClass::Guaranteed,
        ),
        (
            json!({"containers": [{"name": "c"}], "resources": {"requests": {"cpu": "1"}}}),
            QosClass::Burstable,
        ),
    ];
    for (spec, class) in table {
        assert_eq!(QosClass::of(&pod(spec.clone())), class, "{spec}");
    }
    let mut told = pod(json!({"containers": []}));
    told.status.get_or_insert_default().qos_class = Some("Guaranteed".into());
    assert_eq!(QosClass::of(&told), QosClass::Guaranteed);
}

#[test]
fn a_pod_asks_for_the_most_that_it_needs_at_any_time() {
    let spec = json!({
        "containers": [asks(json!({"cpu": "100m"}), json!({})), asks(json!({"cpu": "200m"}), json!({}))],
        "initContainers": [
            asks(json!({"cpu": "250m", "memory": "1Gi"}), json!({})),
            {"name": "s", "restartPolicy": "Always", "resources": {"requests": {"cpu": "50m"}}},
            asks(json!({"cpu": "400m"}), json!({})),
        ],
        "overhead": {"cpu": "10m"},
    });
    let sums = requests(&pod(spec));
    assert_eq!(sums["cpu"].milli_value(), 460);
    assert_eq!(sums["memory"].value(), 1 << 30);
}

#[test]
fn limits_of_a_pod_follow_its_class() {
    let sizes: BTreeSet<String> = ["2MB".to_owned(), "1GB".to_owned()].into();
    let of = |spec| Limits::of_pod(&pod(spec), &config(), &sizes);
    let none = of(json!({"containers": [{"name": "c"}]}));
    assert_eq!(
        (none.cpu_shares, none.cpu_quota, none.memory),
        (Some(2), Some(-1), Some(-1))
    );
    assert_eq!(none.pids, None);
    let some = of(json!({"containers": [
        asks(json!({"cpu": "250m"}), json!({"memory": "64Mi", "cpu": "1"})),
        asks(json!({"cpu": "250m"}), json!({"memory": "64Mi"})),
    ]}));
    assert_eq!(some.cpu_shares, Some(512));
    assert_eq!(some.cpu_quota, Some(-1), "one container has no limit");
    assert_eq!(some.memory, Some(128 << 20));
    let whole = of(json!({"containers": [{"name": "c"}, {"name": "d"}],
        "resources": {"limits": {"cpu": "2", "memory": "1Gi"}, "requests": {"cpu": "1"}}}));
    assert_eq!(
        (whole.cpu_shares, whole.cpu_quota),
        (Some(1024), Some(200_000))
    );
    assert_eq!(whole.memory, Some(1 << 30));
    let huge = of(json!({"containers": [asks(
        json!({"hugepages-2Mi": "4Mi", "cpu": "1"}), json!({"hugepages-2Mi": "4Mi"}))]}));
    assert_eq!(
        huge.hugepages,
        [("1GB".to_owned(), 0), ("2MB".to_owned(), 4 << 20)].into()
    );
    let mut limited = config();
    limited.pod_pids_limit = 100;
    limited.cpu_cfs_quota = false;
    let limits = json!({"cpu": "1", "memory": "1Gi"});
    let pod = pod(json!({"containers": [asks(limits.clone(), limits)]}));
    let limits = Limits::of_pod(&pod, &limited, &sizes);
    assert_eq!((limits.pids, limits.cpu_quota), (Some(100), Some(-1)));
}

#[test]
fn names_are_directories_or_slices() {
    let name = CgroupName::new("")
        .child("kubepods")
        .child("burstable")
        .child("pod1f-0e");
    assert_eq!(name.to_path(), "/kubepods/burstable/pod1f-0e");
    assert_eq!(
        name.to_slices(),
        "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1f_0e.slice"
    );
    let below = CgroupName::new("/a-b").child("kubepods");
    assert_eq!(below.to_slices(), "/a_b.slice/a_b-kubepods.slice");
    for (directory, uid) in [
        ("pod1f-0e", Some("1f-0e")),
        ("kubepods-burstable-pod1f_0e.slice", Some("1f-0e")),
        ("kubepods-pod1f_0e.slice", Some("1f-0e")),
        ("kubepods-burstable.slice", None),
        ("burstable", None),
        ("pod", None),
    ] {
        assert_eq!(uid_of(directory).as_deref(), uid, "{directory}");
    }
}

#[test]
fn hierarchies_are_found_by_where_they_are_mounted() {
    let hybrid = "\
25 1 0:22 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
26 25 0:23 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
27 25 0:24 / /sys/fs/cgroup/mem\\040ory rw,relatime - cgroup cgroup rw,memory
28 25 0:25 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
29 25 0:26 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
30 25 0:23 / /mnt/again rw,relatime - cgroup cgroup rw,cpu,cpuacct
";
    let found = Hierarchies::parse(hybrid).unwrap();
    assert!(!found.is_v2());
    assert_eq!(found.all().len(), 4);
    assert_eq!(
        found.directory("cpuacct", "/kubepods").unwrap(),
        Path::new("/sys/fs/cgroup/cpu,cpuacct/kubepods")
    );
    assert_eq!(
        found.directory("memory", "").unwrap(),
        Path::new("/sys/fs/cgroup/mem ory")
    );
    assert_eq!(found.directory("pids", ""), None);
    assert_eq!(found.missing(), ["cpuset", "pids", "hugetlb"]);
    let pure = "26 25 0:23 / /sys/fs/none rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";
    assert!(Hierarchies::parse(pure).unwrap().is_v2());
    assert_eq!(
        Hierarchies::parse("25 1 0:22 / / rw - ext4 /dev/vda rw\n"),
        None
    );
}

/// A plain directory with the files that a kernel would show for some cgroups.
fn plain(cgroups: &[&str]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let all = ["cgroup.controllers", "cgroup.subtree_control"];
    for file in all {
        fs::write(root.path().join(file), "").unwrap();
    }
    fs::write(
        root.path().join("cgroup.controllers"),
        "cpuset cpu io memory hugetlb pids\n",
    )
    .unwrap();
    for cgroup in cgroups {
        let directory = root.path().join(cgroup);
        fs::create_dir_all(&directory).unwrap();
        for file in [
            "cpu.weight",
            "cpu.max",
            "memory.max",
            "pids.max",
            "cgroup.subtree_control",
        ] {
            fs::write(directory.join(file), "").unwrap();
        }
        fs::write(directory.join("cgroup.controllers"), "cpu memory\n").unwrap();
    }
    root
}

#[test]
fn version_2_is_told_in_its_own_words() {
    let cgroups = [
        "kubepods",
        "kubepods/besteffort",
        "kubepods/burstable",
        "kubepods/burstable/pod1f0e-22",
    ];
    let root = plain(&cgroups);
    // A class that is made now gets its weight; one that was there keeps it.
    let read = |path: &str| fs::read_to_string(root.path().join(path)).unwrap();
    let sim = SimEnv::new(1);
    let manager = CgroupManager::new(
        &config(),
        Hierarchies::unified(root.path()),
        CgroupDriver::Cgroupfs,
        sim.env(),
    )
    .unwrap();
    let limits = json!({"cpu": "500m", "memory": "64Mi"});
    let pod = pod(json!({"containers": [asks(json!({"cpu": "1"}), limits)]}));
    let own = manager.clone();
    let parent = sim.block_on(async move {
        let node = NodeLimits {
            milli_cpu: 2000,
            memory: 1 << 30,
        };
        own.make_roots(node).await.unwrap();
        own.ensure(&pod).await.unwrap()
    });
    assert_eq!(parent, "/kubepods/burstable/pod1f0e-22");
    assert_eq!(read("kubepods/memory.max"), (1u64 << 30).to_string());
    assert_eq!(read("kubepods/cpu.weight"), cpu_weight(2048).to_string());
    assert_eq!(read("kubepods/burstable/cpu.weight"), "100");
    assert_eq!(read("kubepods/burstable/pod1f0e-22/cpu.weight"), "100");
    assert_eq!(
        read("kubepods/burstable/pod1f0e-22/cpu.max"),
        "50000 100000"
    );
    assert_eq!(
        read("kubepods/burstable/pod1f0e-22/memory.max"),
        (64u64 << 20).to_string()
    );
    assert_eq!(
        read("cgroup.subtree_control"),
        "+hugetlb",
        "the last of those that were delegated"
    );
    assert_eq!(
        sim.block_on(async move { manager.on_machine().await }),
        ["1f0e-22"]
    );
}

#[test]
fn what_a_cgroup_uses_is_read_in_either_version() {
    let at = SimEnv::new(1).env().wall();
    let root = tempfile::tempdir().unwrap();
    let put = |file: &str, text: &str| {
        let path = root.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    put("p/cpu.stat", "usage_usec 1500\nuser_usec 1000\n");
    put(
        "p/cpu.pressure",
        "some avg10=1.50 avg60=0.25 avg300=0.00 total=7\n",
    );
    put("p/memory.current", "4096\n");
    put("p/memory.max", "8192\n");
    put(
        "p/memory.stat",
        "anon 1024\ninactive_file 1096\npgfault 3\npgmajfault 1\n",
    );
    put("p/memory.swap.current", "0\n");
    put("p/memory.swap.max", "max\n");
    put("p/pids.current", "2\n");
    let used = usage(&Hierarchies::unified(root.path()), "/p", at);
    let cpu = used.cpu.unwrap();
    assert_eq!(cpu.usage_core_nanoseconds, 1_500_000);
    let stall = cpu.pressure.unwrap();
    assert_eq!((stall.some.avg10, stall.some.total), (1.5, 7000));
    let memory = used.memory.unwrap();
    assert_eq!((memory.working_set, memory.available), (3000, Some(5192)));
    assert_eq!(
        (memory.rss, memory.page_faults, memory.major_page_faults),
        (Some(1024), Some(3), Some(1))
    );
    assert_eq!(used.processes, Some(2));
    assert_eq!(used.swap.unwrap().available, None);
    let gone = usage(&Hierarchies::unified(root.path()), "/q", at);
    assert_eq!(gone, CgroupUsage::default());

    put("cpuacct/p/cpuacct.usage", "42\n");
    put("memory/p/memory.usage_in_bytes", "4096\n");
    put("memory/p/memory.limit_in_bytes", "9223372036854771712\n");
    put(
        "memory/p/memory.stat",
        "total_inactive_file 96\ntotal_rss 1\ntotal_pgfault 2\n",
    );
    let mounts = format!(
        "1 0 0:1 / {0}/cpuacct rw - cgroup cgroup rw,cpuacct\n2 0 0:2 / {0}/memory rw - cgroup cgroup rw,memory\n",
        root.path().display()
    );
    let used = usage(&Hierarchies::parse(&mounts).unwrap(), "p", at);
    assert_eq!(used.cpu.unwrap().usage_core_nanoseconds, 42);
    let memory = used.memory.unwrap();
    assert_eq!(
        (memory.working_set, memory.available, memory.rss),
        (4000, None, Some(1))
    );
    assert_eq!(used.processes, None);
}

#[test]
fn systemd_is_told_by_its_own_command() {
    use std::os::unix::fs::PermissionsExt;
    let root = plain(&[]);
    let log = root.path().join("told");
    let program = root.path().join("systemctl");
    let script = format!("#!/bin/sh\necho \"$*\" >> {}\n", log.display());
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let sim = SimEnv::new(1);
    let hierarchies = Hierarchies::unified(root.path());
    let systemd = Some(Systemd::new(&program));
    let manager = CgroupManager::with(&config(), hierarchies, systemd, sim.env());
    let limits = json!({"cpu": "1500m", "memory": "64Mi"});
    let pod = pod(json!({"containers": [asks(limits.clone(), limits)]}));
    let parent = sim.block_on(async move { manager.ensure(&pod).await.unwrap() });
    assert_eq!(parent, "/kubepods.slice/kubepods-pod1f0e_22.slice");
    let told = fs::read_to_string(log).unwrap();
    assert_eq!(
        told.lines().take(2).collect::<Vec<_>>(),
        [
            "--no-ask-password start kubepods-pod1f0e_22.slice",
            "--no-ask-password set-property --runtime kubepods-pod1f0e_22.slice CPUWeight=138 CPUQuota=150.00% \
             CPUQuotaPeriodSec=100000us MemoryMax=67108864",
        ]
    );
    let none = Systemd::new(root.path().join("nothing"));
    let error = none.stop("a.slice").unwrap_err().to_string();
    assert!(error.starts_with("systemctl stop a.slice: "), "{error}");
    if !Path::new("/run/systemd/system").is_dir() {
        let machine = Hierarchies::unified(root.path());
        let refused =
            CgroupManager::new(&config(), machine, CgroupDriver::Systemd, sim.env()).unwrap_err();
        assert!(
            refused
                .to_string()
                .starts_with("the systemd cgroup driver is configured")
        );
    }
}

/// The machine's own hierarchies, for a test with a cgroup root of its own; `None` where it may not.
fn machine(test: &str) -> Option<Hierarchies> {
    let skip = |why: &str| {
        println!("skipped: {test}: {why}");
        None
    };
    if !rustix::process::geteuid().is_root() {
        return skip("not the superuser");
    }
    let Ok(found) = Hierarchies::of_machine() else {
        return skip("no cgroups are mounted");
    };
    let probe = format!("/orlop-probe-{}-{test}", std::process::id());
    let made = found.make(&probe).is_ok();
    let removed = processes::remove(&found.directories(&probe)).is_ok();
    if made && removed {
        Some(found)
    } else {
        skip("cgroups cannot be made")
    }
}

fn sleeper(directories: &[std::path::PathBuf]) -> std::process::Child {
    let child = std::process::Command::new("sleep")
        .arg("600")
        .spawn()
        .unwrap();
    for directory in directories {
        let _ = files::write(&directory.join("cgroup.procs"), &child.id().to_string());
    }
    child
}

#[test]
fn a_real_pods_cgroup_is_made_limited_emptied_and_removed() {
    let Some(machine) = machine("real") else {
        return;
    };
    let mut config = config();
    config.cgroup_root = format!("/orlop-test-{}", std::process::id());
    config.pod_pids_limit = 64;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let hierarchies = machine.clone();
        let manager =
            CgroupManager::new(&config, hierarchies, CgroupDriver::Cgroupfs, Env::tokio()).unwrap();
        manager
            .make_roots(NodeLimits {
                milli_cpu: 2000,
                memory: 1 << 30,
            })
            .await
            .unwrap();
        let limits = json!({"cpu": "500m", "memory": "64Mi"});
        let pod = pod(json!({"containers": [asks(json!({"cpu": "250m"}), limits)]}));
        let parent = manager.ensure(&pod).await.unwrap();
        assert_eq!(manager.ensure(&pod).await.unwrap(), parent);
        assert_eq!(
            parent,
            format!("{}/kubepods/burstable/pod1f0e-22", config.cgroup_root)
        );
        assert_eq!(manager.on_machine().await, ["1f0e-22"]);
        let at = |controller: &str, file: &str| {
            files::read(&machine.directory(controller, &parent)?.join(file))
        };
        if machine.is_v2() {
            if let Some(limit) = at("memory", "memory.max") {
                assert_eq!(limit, (64 << 20).to_string());
            }
        } else {
            for (controller, file, value) in [
                ("cpu", "cpu.shares", "256"),
                ("cpu", "cpu.cfs_quota_us", "50000"),
                ("memory", "memory.limit_in_bytes", "67108864"),
                ("pids", "pids.max", "64"),
            ] {
                if machine.directory(controller, &parent).is_some() {
                    assert_eq!(at(controller, file).as_deref(), Some(value), "{file}");
                }
            }
            let class =
                machine.directory("cpu", &format!("{}/kubepods/burstable", config.cgroup_root));
            assert_eq!(
                files::read(&class.unwrap().join("cpu.shares")).unwrap(),
                "256"
            );
        }

        // Somebody is left in it, in a cgroup of a runtime's own.
        let inner = format!("{parent}/left");
        machine.make(&inner).unwrap();
        let mut child = sleeper(&machine.directories(&inner));
        let used = manager.usage(&parent).await;
        if used.processes.is_some() {
            assert_eq!(used.processes, Some(1));
        }
        // The child is ours to reap: until then it would stay in the cgroup as a dead process.
        let reaper = std::thread::spawn(move || child.wait().unwrap());
        manager.remove("1f0e-22").await.unwrap();
        use std::os::unix::process::ExitStatusExt;
        assert_eq!(reaper.join().unwrap().signal(), Some(9));
        assert!(manager.on_machine().await.is_empty());
        for directory in machine.directories(&parent) {
            assert!(!directory.exists(), "{directory:?}");
        }
        manager.remove("1f0e-22").await.unwrap();
        assert!(manager.remove("../kubepods").await.is_err());
        manager.remove_empty_roots().await.unwrap();
        for directory in machine.directories(&format!("{}/kubepods", config.cgroup_root)) {
            assert!(!directory.exists(), "{directory:?}");
        }
        processes::remove(&machine.directories(&config.cgroup_root)).unwrap();
    });
}

#[test]
fn a_cgroup_of_version_2_is_killed_as_a_whole() {
    let Some(found) = machine("unified") else {
        return;
    };
    let Some(unified) = found.all().iter().find(|one| one.unified) else {
        println!("skipped: unified: no hierarchy of version 2 is mounted");
        return;
    };
    let hierarchies = Hierarchies::unified(&unified.path);
    let mut config = config();
    config.cgroup_root = format!("/orlop-test2-{}", std::process::id());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let manager = CgroupManager::new(
            &config,
            hierarchies.clone(),
            CgroupDriver::Cgroupfs,
            Env::tokio(),
        )
        .unwrap();
        let pod = pod_of("ab", json!({"containers": [{"name": "c"}]}));
        let parent = manager.ensure(&pod).await.unwrap();
        let mut child = sleeper(&hierarchies.directories(&parent));
        let reaper = std::thread::spawn(move || child.wait().unwrap());
        manager.remove("ab").await.unwrap();
        assert!(!reaper.join().unwrap().success());
        manager.remove_empty_roots().await.unwrap();
        processes::remove(&hierarchies.directories(&config.cgroup_root)).unwrap();
    });
}

#[test]
fn cgroups_can_be_left_to_the_runtime() {
    let sim = SimEnv::new(1);
    let manager = CgroupManager::left_to_the_runtime(&config(), sim.env());
    sim.block_on(async move {
        let pod = pod(json!({"containers": []}));
        assert_eq!(manager.ensure(&pod).await.unwrap(), "");
        manager.remove("1f0e-22").await.unwrap();
        assert!(manager.on_machine().await.is_empty());
    });
}
