//! What containers may take, and who is killed first.

use super::*;

#[test]
fn amounts_reach_the_kernel() {
    let config = KubeletConfig::new("node");
    let of = |spec: Value, config: &KubeletConfig, node: &NodeFacts| {
        let pod = pod_of(spec);
        container_resources(
            &pod,
            &pod.spec.as_ref().unwrap().containers[0],
            config,
            node,
        )
    };
    let own = |requests: Value, limits: Value| json!({"containers": [{"name": "c", "resources": {"requests": requests, "limits": limits}}]});
    for (spec, shares, quota, memory, score) in [
        (own(json!({}), json!({})), 2, None, None, 1000),
        (
            own(json!({"cpu": "100m", "memory": "100Mi"}), json!({})),
            102,
            None,
            None,
            900,
        ),
        (
            own(json!({}), json!({"cpu": "1"})),
            1024,
            Some(100_000),
            None,
            999,
        ),
        (
            own(
                json!({"cpu": "1", "memory": "1Gi"}),
                json!({"cpu": "1", "memory": "1Gi"}),
            ),
            1024,
            Some(100_000),
            Some(1 << 30),
            -997,
        ),
        (
            own(json!({"memory": "1Gi"}), json!({"memory": "2Gi"})),
            2,
            None,
            Some(2 << 30),
            3,
        ),
        (
            json!({"containers": [{"name": "c"}], "resources": {"limits": {"cpu": "2", "memory": "200Mi"}, "requests": {"memory": "200Mi"}}}),
            2048,
            Some(200_000),
            Some(200 << 20),
            800,
        ),
    ] {
        let made = of(spec.clone(), &config, &node());
        assert_eq!(made.cpu_shares, Some(shares), "{spec}");
        assert_eq!(made.cpu_quota, quota, "{spec}");
        assert_eq!(made.cpu_period, Some(100_000));
        assert_eq!(made.memory_limit, memory, "{spec}");
        assert_eq!(made.oom_score_adj, Some(score), "{spec}");
        assert_eq!(made.hugepages["2MB"], 0);
        assert!(made.unified.is_empty());
    }
    let mut careful = config.clone();
    careful.restrict_oom_score_adj = true;
    careful.cpu_cfs_quota = false;
    let both = json!({"cpu": "1", "memory": "64Mi", "hugepages-2Mi": "4Mi"});
    let newer = NodeFacts {
        cgroup_v2: true,
        counts_swap: true,
        ..node()
    };
    let made = of(own(both.clone(), both.clone()), &careful, &newer);
    assert_eq!(made.oom_score_adj, Some(0));
    assert_eq!((made.cpu_quota, made.cpu_period), (None, None));
    assert_eq!(made.hugepages["2MB"], 4 << 20);
    assert_eq!(made.unified["memory.oom.group"], "1");
    assert_eq!(made.unified["memory.swap.max"], "0");
    let older = NodeFacts {
        counts_swap: true,
        ..node()
    };
    assert_eq!(
        of(own(both.clone(), both), &config, &older).memory_swap_limit,
        Some(64 << 20)
    );
}

#[test]
fn who_is_killed_first_follows_importance() {
    let memory = 1000 << 20;
    let score = |spec: Value, annotation: Option<&str>| {
        let mut pod = Pod::clone(&pod_of(spec));
        if let Some(name) = annotation {
            pod.metadata.annotations = Some([(name.to_owned(), "file".to_owned())].into());
        }
        let spec = pod.spec.as_ref().unwrap();
        let first = spec
            .init_containers
            .iter()
            .flatten()
            .chain(&spec.containers)
            .next()
            .unwrap();
        oom_score_adj(&pod, first, memory)
    };
    let critical = json!({"containers": [{"name": "c"}], "priorityClassName": "system-node-critical", "priority": 2_000_001_000});
    assert_eq!(score(critical, None), -997);
    let named = json!({"containers": [{"name": "c"}], "priorityClassName": "system-node-critical"});
    assert_eq!(
        score(named.clone(), None),
        1000,
        "anybody could write the name"
    );
    assert_eq!(score(named, Some("kubernetes.io/config.source")), -997);
    let beside = json!({
        "initContainers": [{"name": "s", "restartPolicy": "Always", "resources": {"requests": {"memory": "10Mi"}}}],
        "containers": [{"name": "c", "resources": {"requests": {"memory": "500Mi"}}}],
    });
    assert_eq!(score(beside, None), 500, "no earlier than what it serves");
}
