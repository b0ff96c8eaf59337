//! Fewer nodes than before, and none: what ran on them ends with them, also where nobody is there to ask.

use std::process::Command;

use serde_json::json;

use super::pod;
use crate::support::{Machine, eventually};

/// Whether pods' network namespaces are still there.
fn left(namespaces: &[String]) -> Vec<&String> {
    let there = |path: &&String| std::path::Path::new(path).exists();
    namespaces.iter().filter(there).collect()
}

#[test]
fn nodes_that_are_not_wanted_any_more_are_gone() {
    let name = "nodes_that_are_not_wanted_any_more_are_gone";
    let Some(mut machine) = Machine::start(name, 2, &[]) else {
        return;
    };
    let kubectl = machine.kubectl();
    let spec = pod("everywhere", "sleep 1000")["spec"].clone();
    let everywhere = json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "everywhere"},
        "spec": {
            "selector": {"matchLabels": {"app": "everywhere"}},
            "template": {"metadata": {"labels": {"app": "everywhere"}}, "spec": spec},
        },
    });
    let mut everywhere = everywhere;
    everywhere["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] = json!(1);
    kubectl.file("everywhere.json", &everywhere.to_string());
    kubectl.ok("apply -f everywhere.json");
    kubectl.ok("rollout status daemonset/everywhere --timeout=80s");
    let (first, second) = (machine.pod_namespaces(1), machine.pod_namespaces(2));
    assert_eq!((left(&first).len(), left(&second).len()), (1, 1));
    let node = machine.namespace(2);

    machine.stop();
    machine.set_nodes(1);
    machine.start_again();
    let said = &machine.server().said;
    assert!(
        said.contains("node-2, which an earlier start made, is gone"),
        "{said}"
    );
    assert_eq!(left(&second), Vec::<&String>::new());
    assert!(!std::path::Path::new("/run/netns").join(node).exists());
    let kubectl = machine.kubectl();
    let nodes = kubectl.ok("get nodes -o name");
    assert_eq!(nodes, "node/node-1\n");
    // What was on it is not said to run for ever.
    eventually("its pod is gone", || {
        let pods = kubectl.ok("get pods -o jsonpath={.items[*].spec.nodeName}");
        (pods == "node-1").then_some(())
    });
    assert_eq!(left(&first).len(), 1);

    // Nobody is left who could be asked to end it.
    machine.stop();
    let engine = machine.engine(1);
    let killed = Command::new("kill").args(["-KILL", engine.trim()]).status();
    assert!(killed.unwrap().success());
    drop(machine);
    assert_eq!(left(&first), Vec::<&String>::new());
}
