use super::*;
use crate::resources;

const NOW: &str = "2026-11-22T21:17:00Z";

fn kind(api_version: &str, kind: &str) -> GroupVersionKind {
    GroupVersionKind::from_api_version(api_version, kind)
}

fn show(mut object: Value) -> Vec<Value> {
    let gvk = kind(
        object["apiVersion"].as_str().unwrap(),
        object["kind"].as_str().unwrap(),
    );
    if object["metadata"].is_null() {
        object["metadata"] = json!({"name": "x", "creationTimestamp": "2026-11-22T21:16:00Z"});
    }
    let row = row(&gvk, &object, NOW.parse().unwrap());
    assert!(row.cells.len() >= columns(&gvk).len(), "{gvk}");
    row.cells
}

fn pod(spec: Value, status: Value) -> Vec<Value> {
    show(json!({"apiVersion": "v1", "kind": "Pod", "spec": spec, "status": status}))[1..4].to_vec()
}

#[test]
fn every_column_is_described_and_every_kind_has_a_row_for_its_columns() {
    for (name, columns) in super::columns::all() {
        for column in columns {
            assert!(!column.description.is_empty(), "{name}: {}", column.name);
        }
    }
    for info in resources::builtin() {
        let gvk = info.resource.gvk();
        let row = row(
            &gvk,
            &json!({"metadata": {"name": "x"}}),
            NOW.parse().unwrap(),
        );
        // An address has an age, but no column for it.
        let extra = usize::from(&*gvk.kind == "IPAddress");
        assert_eq!(row.cells.len(), columns(&gvk).len() + extra, "{gvk}");
    }
}

#[test]
fn kinds_without_columns_have_name_and_creation() {
    let role = kind("rbac.authorization.k8s.io/v1", "Role");
    let headings: Vec<_> = columns(&role)
        .iter()
        .map(|c| (&*c.name, &*c.ty, &*c.format))
        .collect();
    assert_eq!(
        headings,
        [("Name", "string", "name"), ("Created At", "date", "")]
    );
    // A custom kind named like a built-in one is not that one.
    assert_eq!(columns(&kind("example.com/v1", "Pod")).len(), 2);
    assert_eq!(
        show(json!({"apiVersion": "example.com/v1", "kind": "Pod"})),
        [json!("x"), json!("2026-11-22T21:16:00Z")]
    );
}

#[test]
fn columns_of_pods() {
    let columns: Vec<_> = columns(&kind("v1", "Pod"))
        .iter()
        .map(|c| (&*c.name, c.priority))
        .collect();
    assert_eq!(
        columns,
        [
            ("Name", 0),
            ("Ready", 0),
            ("Status", 0),
            ("Restarts", 0),
            ("Age", 0),
            ("IP", 1),
            ("Node", 1),
            ("Nominated Node", 1),
            ("Readiness Gates", 1)
        ]
    );
}

#[test]
fn a_running_pod() {
    let cells = show(json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "po", "creationTimestamp": "2026-11-22T21:16:59Z"},
        "spec": {"containers": [{"name": "c"}]}, "status": {"phase": "Running"},
    }));
    let want = [
        "po", "0/1", "Running", "0", "1s", "<none>", "<none>", "<none>", "<none>",
    ];
    assert_eq!(cells, want.map(Value::from));
}

#[test]
fn what_becomes_of_containers() {
    let one = json!({"containers": [{"name": "c"}]});
    let state = |state: Value| {
        pod(
            one.clone(),
            json!({"phase": "Running", "containerStatuses": [{"name": "c", "restartCount": 2, "state": state,
            "lastState": {"terminated": {"finishedAt": "2026-11-22T21:12:00Z"}}}]}),
        )
    };
    assert_eq!(
        state(json!({"waiting": {"reason": "CrashLoopBackOff"}})),
        ["0/1", "CrashLoopBackOff", "2 (5m ago)"].map(Value::from)
    );
    assert_eq!(
        state(json!({"terminated": {"reason": "OOMKilled", "exitCode": 137}}))[1],
        "OOMKilled"
    );
    assert_eq!(
        state(json!({"terminated": {"exitCode": 3}}))[1],
        "ExitCode:3"
    );
    assert_eq!(
        state(json!({"terminated": {"signal": 9, "exitCode": 137}}))[1],
        "Signal:9"
    );
    let two = json!({"containers": [{"name": "a"}, {"name": "b"}]});
    let done_and_running = json!({"phase": "Running", "containerStatuses": [
        {"name": "a", "ready": true, "state": {"running": {}}},
        {"name": "b", "state": {"terminated": {"reason": "Completed"}}},
    ]});
    assert_eq!(
        pod(two.clone(), done_and_running.clone())[..2],
        ["1/2", "NotReady"].map(Value::from)
    );
    let mut ready = done_and_running;
    ready["conditions"] = json!([{"type": "Ready", "status": "True"}]);
    assert_eq!(pod(two, ready)[1], "Running");
    assert_eq!(
        pod(one.clone(), json!({"phase": "Failed", "reason": "Evicted"}))[1],
        "Evicted"
    );
    let gated = json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "reason": "SchedulingGated"}]});
    assert_eq!(pod(one, gated)[1], "SchedulingGated");
}

#[test]
fn init_containers_and_sidecars() {
    let spec = json!({
        "containers": [{"name": "c"}],
        "initContainers": [{"name": "i"}, {"name": "s", "restartPolicy": "Always"}, {"name": "j"}],
    });
    let done = json!({"name": "i", "restartCount": 3, "state": {"terminated": {"exitCode": 0}}});
    let sidecar = json!({"name": "s", "restartCount": 1, "ready": true, "started": true, "state": {"running": {}}});
    let init = |statuses: Value| {
        pod(
            spec.clone(),
            json!({"phase": "Pending", "initContainerStatuses": statuses}),
        )
    };
    assert_eq!(
        init(json!([{"name": "i", "state": {"running": {}}}])),
        ["0/2", "Init:0/3", "0"].map(Value::from)
    );
    assert_eq!(
        init(
            json!([done, sidecar, {"name": "j", "state": {"waiting": {"reason": "PodInitializing"}}}])
        ),
        ["1/2", "Init:2/3", "4"].map(Value::from)
    );
    assert_eq!(
        init(json!([{"name": "i", "state": {"terminated": {"exitCode": 1, "reason": "Error"}}}]))
            [1],
        "Init:Error"
    );
    assert_eq!(
        init(json!([{"name": "i", "state": {"terminated": {"exitCode": 7}}}]))[1],
        "Init:ExitCode:7"
    );
    assert_eq!(
        init(json!([{"name": "i", "state": {"waiting": {"reason": "ImagePullBackOff"}}}]))[1],
        "Init:ImagePullBackOff"
    );
    // Once initialized, the restarts of init containers count no longer, but for those of sidecars.
    let running = json!({
        "phase": "Running",
        "initContainerStatuses": [done, sidecar, {"name": "j", "state": {"terminated": {"exitCode": 0}}}],
        "containerStatuses": [{"name": "c", "ready": true, "restartCount": 1, "state": {"running": {}}}],
    });
    assert_eq!(pod(spec, running), ["2/2", "Running", "2"].map(Value::from));
}

#[test]
fn pods_that_end() {
    let deleted = |status: Value| {
        let metadata = json!({"name": "x", "deletionTimestamp": "2026-11-22T21:16:00Z"});
        show(json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "status": status}))[2]
            .clone()
    };
    assert_eq!(deleted(json!({"phase": "Running"})), "Terminating");
    assert_eq!(deleted(json!({"phase": "Succeeded"})), "Succeeded");
    assert_eq!(
        deleted(json!({"phase": "Running", "reason": "NodeLost"})),
        "Unknown"
    );
    let done = row(
        &kind("v1", "Pod"),
        &json!({"status": {"phase": "Succeeded"}}),
        NOW.parse().unwrap(),
    );
    assert_eq!(
        done.conditions,
        [
            json!({"type": "Completed", "status": "True", "reason": "Succeeded", "message": "The pod has completed successfully."})
        ]
    );
}

#[test]
fn workloads() {
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "spec": {"replicas": 5, "selector": {"matchLabels": {"a": "b"}}, "template": {"spec": {"containers": [{"name": "c", "image": "i"}, {"name": "d", "image": "j"}]}}},
        "status": {},
    });
    let want = json!(["x", "0/5", 0, 0, "60s", "c,d", "i,j", "a=b"]);
    assert_eq!(json!(show(deployment)), want);
    let job = |spec: Value, status: Value| {
        show(json!({"apiVersion": "batch/v1", "kind": "Job", "spec": spec, "status": status}))[1..4]
            .to_vec()
    };
    assert_eq!(
        job(
            json!({"completions": 3}),
            json!({"succeeded": 1, "startTime": "2026-11-22T21:16:30Z"})
        ),
        ["Running", "1/3", "30s"].map(Value::from)
    );
    assert_eq!(
        job(json!({"parallelism": 4}), json!({})),
        ["Running", "0/1 of 4", ""].map(Value::from)
    );
    let complete = json!({"startTime": "2026-11-22T21:00:00Z", "completionTime": "2026-11-22T21:03:05Z", "succeeded": 1,
        "conditions": [{"type": "Complete", "status": "True"}]});
    assert_eq!(
        job(json!({"completions": 1}), complete),
        ["Complete", "1/1", "3m5s"].map(Value::from)
    );
    let cron = json!({"apiVersion": "batch/v1", "kind": "CronJob", "spec": {"schedule": "* * * * *", "suspend": false}});
    assert_eq!(
        show(cron)[1..6],
        [
            json!("* * * * *"),
            json!("<none>"),
            json!("False"),
            json!(0),
            json!("<none>")
        ]
    );
    let hpa = json!({
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
        "spec": {"scaleTargetRef": {"kind": "Deployment", "name": "d"}, "maxReplicas": 9, "metrics": [
            {"type": "Resource", "resource": {"name": "cpu", "target": {"averageUtilization": 80}}},
            {"type": "Pods", "pods": {"target": {"averageValue": "1000m"}}},
            {"type": "External", "external": {"target": {"value": "5"}}},
        ]},
        "status": {"currentMetrics": [{"type": "Resource", "resource": {"current": {"averageUtilization": 42}}}]},
    });
    assert_eq!(
        json!(show(hpa)[1..6]),
        json!([
            "Deployment/d",
            "cpu: 42%/80%, <unknown>/1 + 1 more...",
            "<unset>",
            9,
            0
        ])
    );
    let pdb = json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "spec": {"minAvailable": "50%"}});
    assert_eq!(json!(show(pdb)[1..4]), json!(["50%", "N/A", 0]));
    let revision = json!({"apiVersion": "apps/v1", "kind": "ControllerRevision", "revision": 2,
        "metadata": {"name": "r", "ownerReferences": [{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "web", "controller": true}]}});
    assert_eq!(
        json!(show(revision)),
        json!(["r", "statefulset.apps/web", 2, "<unknown>"])
    );
}

#[test]
fn services() {
    let service = |spec: Value, status: Value| {
        json!(
            show(json!({"apiVersion": "v1", "kind": "Service", "spec": spec, "status": status}))
                [1..]
        )
    };
    assert_eq!(
        service(
            json!({"type": "ExternalName", "externalName": "foo.com"}),
            json!({})
        ),
        json!([
            "ExternalName",
            "<none>",
            "foo.com",
            "<none>",
            "60s",
            "<none>"
        ])
    );
    let ports = json!([{"port": 80, "protocol": "TCP", "nodePort": 31151}, {"port": 53, "protocol": "UDP"}]);
    assert_eq!(
        service(
            json!({"type": "LoadBalancer", "clusterIPs": ["10.0.0.1"], "ports": ports, "selector": {"b": "c", "a": "b"}}),
            json!({})
        ),
        json!([
            "LoadBalancer",
            "10.0.0.1",
            "<pending>",
            "80:31151/TCP,53/UDP",
            "60s",
            "a=b,b=c"
        ])
    );
    let status = json!({"loadBalancer": {"ingress": [{"ip": "2.2.2.2"}, {"hostname": "h"}, {"ip": "1.1.1.1"}]}});
    assert_eq!(
        service(
            json!({"type": "LoadBalancer", "externalIPs": ["9.9.9.9"]}),
            status
        )[2],
        "1.1.1.1,2.2.2.2,h,9.9.9.9"
    );
    assert_eq!(
        service(
            json!({"type": "ClusterIP", "clusterIPs": ["None"]}),
            json!({})
        )[1],
        "None"
    );
}

#[test]
fn endpoints_and_ingresses() {
    let endpoints = json!({"apiVersion": "v1", "kind": "Endpoints", "subsets": [{
        "addresses": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}], "ports": [{"port": 80}, {"port": 443}],
    }]});
    assert_eq!(
        show(endpoints)[1],
        "10.0.0.1:80,[fd00::1]:80,10.0.0.1:443 + 1 more..."
    );
    assert_eq!(
        show(json!({"apiVersion": "v1", "kind": "Endpoints"}))[1],
        "<none>"
    );
    let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "ports": [{"port": 80}, {"name": "x"}, {}], "endpoints": []});
    assert_eq!(
        json!(show(slice)[1..4]),
        json!(["IPv4", "80,x,*", "<unset>"])
    );
    let ingress = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
        "spec": {"tls": [{}], "rules": [{"host": "a"}, {"host": "b"}, {"host": "c"}, {"host": "d"}]},
        "status": {"loadBalancer": {"ingress": [{"ip": "1.2.3.4"}]}},
    });
    assert_eq!(
        json!(show(ingress)[1..5]),
        json!(["<none>", "a,b,c + 1 more...", "1.2.3.4", "80, 443"])
    );
    let policy = |selector: Value| {
        show(json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "spec": {"podSelector": selector}}))[1].clone()
    };
    assert_eq!(policy(json!({})), "<none>");
    let expressions = json!({"matchLabels": {"z": "1"}, "matchExpressions": [{"key": "a", "operator": "In", "values": ["y", "x"]}, {"key": "b", "operator": "DoesNotExist"}]});
    assert_eq!(policy(expressions), "a in (x,y),!b,z=1");
}

#[test]
fn nodes_and_events() {
    let node = json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": "n", "labels": {"node-role.kubernetes.io/worker": "", "kubernetes.io/role": "edge", "node-role.kubernetes.io/": "x"}},
        "spec": {"unschedulable": true},
        "status": {
            "conditions": [{"type": "Ready", "status": "Unknown"}],
            "addresses": [{"type": "Hostname", "address": "n"}, {"type": "InternalIP", "address": "10.0.0.9"}],
            "nodeInfo": {"kubeletVersion": "v1.36.2", "osImage": "Debian"},
        },
    });
    assert_eq!(
        json!(show(node)),
        json!([
            "n",
            "NotReady,SchedulingDisabled",
            "edge,worker",
            "<unknown>",
            "v1.36.2",
            "10.0.0.9",
            "<none>",
            "Debian",
            "<unknown>",
            "<unknown>"
        ])
    );
    let core = json!({
        "apiVersion": "v1", "kind": "Event", "metadata": {"name": "e"}, "type": "Normal", "reason": "Pulled", "message": " m\n",
        "involvedObject": {"kind": "Pod", "name": "p", "fieldPath": "spec"}, "source": {"component": "kubelet", "host": "n"},
        "firstTimestamp": "2026-11-22T21:00:00Z", "lastTimestamp": "2026-11-22T21:16:50Z", "count": 4,
    });
    let want = json!([
        "10s",
        "Normal",
        "Pulled",
        "pod/p",
        "spec",
        "kubelet, n",
        "m",
        "17m",
        4,
        "e"
    ]);
    assert_eq!(json!(show(core)), want);
    let newer = json!({
        "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "e"}, "type": "Normal", "reason": "Pulled", "note": "m",
        "regarding": {"kind": "Pod", "name": "p"}, "reportingController": "c", "eventTime": "2026-11-22T21:16:50.000000Z",
    });
    assert_eq!(
        json!(show(newer)),
        json!([
            "10s", "Normal", "Pulled", "pod/p", "", "c", "m", "10s", 1, "e"
        ])
    );
}

#[test]
fn storage() {
    let claim = |spec: Value, status: Value| {
        json!(
            show(
                json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "spec": spec, "status": status})
            )[1..]
        )
    };
    assert_eq!(
        claim(
            json!({"storageClassName": "fast"}),
            json!({"phase": "Pending"})
        ),
        json!(["Pending", "", "", "", "fast", "<unset>", "60s", "<unset>"])
    );
    let bound = json!({"phase": "Bound", "accessModes": ["ReadWriteMany", "ReadWriteOnce"], "capacity": {"storage": "1024Mi"}});
    assert_eq!(
        claim(
            json!({"volumeName": "v", "volumeMode": "Filesystem"}),
            bound
        ),
        json!([
            "Bound",
            "v",
            "1Gi",
            "RWO,RWX",
            "",
            "<unset>",
            "60s",
            "Filesystem"
        ])
    );
    let class = json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "provisioner": "p",
        "metadata": {"name": "s", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}});
    assert_eq!(
        json!(show(class)),
        json!([
            "s (default)",
            "p",
            "Delete",
            "Immediate",
            false,
            "<unknown>"
        ])
    );
    let driver = json!({"apiVersion": "storage.k8s.io/v1", "kind": "CSIDriver", "spec": {"volumeLifecycleModes": ["Persistent"]}});
    assert_eq!(
        json!(show(driver)[1..7]),
        json!([true, false, false, "<unset>", false, "Persistent"])
    );
}

#[test]
fn access_and_quota() {
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "roleRef": {"kind": "Role", "name": "r"},
        "subjects": [{"kind": "User", "name": "u"}, {"kind": "User", "name": "v"}, {"kind": "ServiceAccount", "namespace": "n", "name": "s"}],
    });
    assert_eq!(
        json!(show(binding)[1..]),
        json!(["Role/r", "60s", "u, v", "", "n/s"])
    );
    let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "status": {
        "hard": {"pods": "10", "limits.cpu": "2", "requests.cpu": "1"}, "used": {"pods": "3", "limits.cpu": "500m"},
    }});
    assert_eq!(
        json!(show(quota)[1..3]),
        json!(["pods: 3/10, requests.cpu: 0/1", "limits.cpu: 500m/2"])
    );
    let csr = json!({"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
        "spec": {"signerName": "s", "username": "u", "expirationSeconds": 86400}, "status": {"certificate": "eA==", "conditions": [{"type": "Approved"}]}});
    assert_eq!(
        json!(show(csr)[1..]),
        json!(["60s", "s", "u", "24h", "Approved,Issued"])
    );
    let secret =
        json!({"apiVersion": "v1", "kind": "Secret", "type": "Opaque", "data": {"a": "", "b": ""}});
    assert_eq!(json!(show(secret)[1..3]), json!(["Opaque", 2]));
    let level = json!({"apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "PriorityLevelConfiguration",
        "spec": {"type": "Limited", "limited": {"nominalConcurrencyShares": 30, "limitResponse": {"type": "Reject"}}}});
    assert_eq!(
        json!(show(level)[1..6]),
        json!(["Limited", 30, "<none>", "<none>", "<none>"])
    );
}

#[test]
fn a_whole_table() {
    let object = json!({"metadata": {"name": "c1"}, "data": {"a": "b"}});
    let gvk = kind("v1", "ConfigMap");
    let row = |include| {
        row_value(
            super::row(&gvk, &object, NOW.parse().unwrap()),
            &object,
            include,
            "v1",
        )
    };
    let table = document(
        Some(columns(&gvk)),
        vec![row(IncludeObject::Metadata)],
        json!({"resourceVersion": "7"}),
        "v1",
    );
    assert_eq!(
        (&table["kind"], &table["apiVersion"]),
        (&json!("Table"), &json!("meta.k8s.io/v1"))
    );
    assert_eq!(table["columnDefinitions"][1]["name"], "Data");
    assert_eq!(
        table["rows"],
        json!([{"cells": ["c1", 1, "<unknown>"], "object": {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": {"name": "c1"}}}])
    );
    assert_eq!(row(IncludeObject::Object)["object"], object);
    assert_eq!(row(IncludeObject::None)["object"], Value::Null);
    assert_eq!(IncludeObject::parse("Some"), None);
    assert_eq!(
        document(None, vec![], json!({}), "v1beta1")["columnDefinitions"],
        json!([])
    );
}

#[test]
fn flow_schemas_come_by_precedence() {
    let schema = |name: &str, precedence: i64| json!({"metadata": {"name": name}, "spec": {"matchingPrecedence": precedence}});
    let (a, b, c) = (schema("a", 9), schema("b", 1), schema("c", 1));
    let mut list = [&a, &c, &b];
    sort(
        &kind("flowcontrol.apiserver.k8s.io/v1", "FlowSchema"),
        &mut list,
    );
    assert_eq!(
        list.map(|o| o["metadata"]["name"].as_str().unwrap()),
        ["b", "c", "a"]
    );
    sort(&kind("v1", "Pod"), &mut list);
    assert_eq!(
        list.map(|o| o["metadata"]["name"].as_str().unwrap()),
        ["b", "c", "a"]
    );
}
