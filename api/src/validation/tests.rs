//! Refusals of a real server of Kubernetes v1.36, and the rules behind them.

use orlop_core::resource::GroupVersionKind;
use serde_json::{Value, json};

use super::*;
use crate::defaults;
use crate::strategy::{self, Context};

fn gvk(api_version: &str, kind: &str) -> GroupVersionKind {
    GroupVersionKind::from_api_version(api_version, kind)
}

/// A document as the server has it before it is checked.
fn prepared(api_version: &str, kind: &str, mut document: Value) -> Value {
    let gvk = gvk(api_version, kind);
    defaults::apply(&gvk, &mut document);
    doc::set(&mut document["metadata"], "uid", "u-1");
    strategy::prepare_for_create(
        &gvk,
        &mut document,
        &Context {
            now: "2026-01-01T00:00:00Z".into(),
            user: None,
        },
    );
    document
}

fn texts(errors: Vec<FieldError>) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}

fn created(api_version: &str, kind: &str, document: Value) -> Vec<String> {
    let document = prepared(api_version, kind, document);
    texts(validate_create(&gvk(api_version, kind), &document))
}

fn updated(
    api_version: &str,
    kind: &str,
    old: Value,
    change: impl FnOnce(&mut Value),
) -> Vec<String> {
    let kind = gvk(api_version, kind);
    let mut old = prepared(&kind.api_version(), &kind.kind, old);
    old["metadata"]["resourceVersion"] = json!("1");
    let mut new = old.clone();
    change(&mut new);
    defaults::apply(&kind, &mut new);
    strategy::prepare_for_update(&kind, &mut new, &old, None, &Context::default());
    texts(validate_update(&kind, &new, &old, None))
}

fn deployment() -> Value {
    json!({"metadata": {"name": "d", "namespace": "n"}, "spec": {
        "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}})
}

#[test]
fn namespaces_are_named_by_labels() {
    assert_eq!(
        created("v1", "Namespace", json!({"metadata": {"name": "Bad_Name"}})),
        [
            "metadata.name: Invalid value: \"Bad_Name\": a lowercase RFC 1123 label must consist of lower case alphanumeric \
             characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex \
             used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
        ] // The label that every namespace gets holds the name, but a label's value may look so.
    );
    assert_eq!(
        created("v1", "Namespace", json!({"metadata": {}})),
        ["metadata.name: Required value: name or generateName is required"]
    );
}

#[test]
fn config_maps_and_secrets() {
    assert_eq!(
        created(
            "v1",
            "ConfigMap",
            json!({"metadata": {"name": "u6", "namespace": "n"}, "data": {"a/b": "x"}})
        ),
        [
            "data[a/b]: Invalid value: \"a/b\": a valid config key must consist of alphanumeric characters, '-', '_' or '.' \
             (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"
        ]
    );
    assert_eq!(
        updated(
            "v1",
            "ConfigMap",
            json!({"metadata": {"name": "im", "namespace": "n"}, "data": {"a": "1"}, "immutable": true}),
            |new| new["data"]["a"] = json!("9"),
        ),
        ["data: Forbidden: field is immutable when `immutable` is set"]
    );
    assert_eq!(
        created(
            "v1",
            "Secret",
            json!({"metadata": {"name": "s", "namespace": "n"}, "type": "kubernetes.io/tls", "data": {}})
        ),
        [
            "data[tls.crt]: Required value",
            "data[tls.key]: Required value"
        ]
    );
    assert_eq!(
        created(
            "v1",
            "Secret",
            json!({"metadata": {"name": "s", "namespace": "n"}, "type": "kubernetes.io/dockerconfigjson",
            "data": {".dockerconfigjson": "W10="}}),
        ),
        [
            "data[.dockerconfigjson]: Invalid value: \"<secret contents redacted>\": json: cannot unmarshal array into Go \
             value of type map[string]interface {}"
        ]
    );
    let big = "x".repeat(1024 * 1024 + 1);
    assert_eq!(
        created(
            "v1",
            "ConfigMap",
            json!({"metadata": {"name": "u6", "namespace": "n"}, "data": {"a": big}})
        ),
        ["[]: Too long: may not be more than 1048576 bytes"]
    );
}

#[test]
fn deployments() {
    assert_eq!(created("apps/v1", "Deployment", deployment()), [""; 0]);
    let mut mismatched = deployment();
    mismatched["spec"]["selector"]["matchLabels"]["a"] = json!("z");
    assert_eq!(
        created("apps/v1", "Deployment", mismatched),
        [
            "spec.template.metadata.labels: Invalid value: {\"a\":\"b\"}: `selector` does not match template `labels`"
        ]
    );
    assert_eq!(
        updated("apps/v1", "Deployment", deployment(), |new| {
            new["spec"]["selector"]["matchLabels"]["a"] = json!("c");
        }),
        [
            "spec.template.metadata.labels: Invalid value: {\"a\":\"b\"}: `selector` does not match template `labels`",
            "spec.selector: Invalid value: {\"matchLabels\":{\"a\":\"c\"}}: field is immutable"
        ]
    );
    let mut odd = deployment();
    odd["spec"]["strategy"] =
        json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": "0%"}});
    odd["spec"]["progressDeadlineSeconds"] = json!(5);
    odd["spec"]["minReadySeconds"] = json!(5);
    odd["spec"]["template"]["spec"]["restartPolicy"] = json!("Never");
    assert_eq!(
        created("apps/v1", "Deployment", odd),
        [
            "spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\"",
            "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: \"0%\": may not be 0 when `maxSurge` is 0",
            "spec.progressDeadlineSeconds: Invalid value: 5: must be greater than minReadySeconds",
        ]
    );
    let mut recreate = deployment();
    recreate["spec"]["strategy"] = json!({"type": "Foo"});
    assert_eq!(
        created("apps/v1", "Deployment", recreate),
        [
            "spec.strategy: Unsupported value: {\"Type\":\"Foo\",\"RollingUpdate\":null}: supported values: \"Recreate\", \
             \"RollingUpdate\""
        ]
    );
}

#[test]
fn a_scale_is_not_negative() {
    let scale = json!({"metadata": {"name": "d", "namespace": "n"}, "spec": {"replicas": -1}});
    assert_eq!(
        texts(validate_create(&gvk("autoscaling/v1", "Scale"), &scale)),
        ["spec.replicas: Invalid value: -1: must be greater than or equal to 0"]
    );
}

#[test]
fn stateful_sets_keep_most_of_themselves() {
    let mut set = deployment();
    set["spec"]["serviceName"] = json!("s");
    assert_eq!(created("apps/v1", "StatefulSet", set.clone()), [""; 0]);
    assert_eq!(
        updated(
            "apps/v1",
            "StatefulSet",
            set.clone(),
            |new| new["spec"]["replicas"] = json!(3)
        ),
        [""; 0]
    );
    assert_eq!(
        updated(
            "apps/v1",
            "StatefulSet",
            set,
            |new| new["spec"]["serviceName"] = json!("t")
        ),
        [
            "spec: Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', \
             'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are \
             forbidden"
        ]
    );
}

#[test]
fn daemon_sets_and_replication_controllers() {
    assert_eq!(created("apps/v1", "DaemonSet", deployment()), [""; 0]);
    let controller = json!({"metadata": {"name": "x", "namespace": "n"}, "spec": {"template":
        {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    assert_eq!(created("v1", "ReplicationController", controller), [""; 0]);
    assert_eq!(
        created(
            "v1",
            "ReplicationController",
            json!({"metadata": {"name": "x", "namespace": "n"}, "spec": {}})
        ),
        [
            "spec.selector: Required value",
            "spec.template: Required value"
        ]
    );
}

fn job() -> Value {
    json!({"metadata": {"name": "x", "namespace": "n"}, "spec": {"template": {"spec": {"restartPolicy": "Never",
        "containers": [{"name": "c", "image": "i"}]}}}})
}

#[test]
fn jobs() {
    assert_eq!(created("batch/v1", "Job", job()), [""; 0]);
    let mut bad = job();
    bad["spec"]["template"]["spec"]
        .as_object_mut()
        .map(|spec| spec.remove("restartPolicy"));
    assert_eq!(
        created("batch/v1", "Job", bad),
        [
            "spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\""
        ]
    );
    let mut indexed = job();
    indexed["spec"]["completionMode"] = json!("Indexed");
    indexed["spec"]["parallelism"] = json!(2);
    indexed["spec"]["podFailurePolicy"] = json!({"rules": [{"action": "FailJob"}]});
    assert_eq!(
        created("batch/v1", "Job", indexed),
        [
            "spec.completions: Required value: when completion mode is Indexed",
            "spec.podFailurePolicy.rules[0]: Invalid value: specifying one of OnExitCodes and OnPodConditions is required",
        ]
    );
    let errors = updated("batch/v1", "Job", job(), |new| {
        new["spec"]["template"]["spec"]["containers"][0]["image"] = json!("j");
        new["spec"]["completions"] = json!(2);
    });
    assert_eq!(errors.len(), 2, "{errors:?}");
    assert_eq!(
        errors[0],
        "spec.completions: Invalid value: 2: field is immutable"
    );
    assert!(
        errors[1].starts_with("spec.template: Invalid value: {")
            && errors[1].ends_with(": field is immutable")
    );
    let suspended = |mut job: Value| {
        job["spec"]["suspend"] = json!(true);
        job
    };
    assert_eq!(
        updated("batch/v1", "Job", suspended(job()), |new| {
            new["spec"]["template"]["spec"]["nodeSelector"] = json!({"zone": "a"});
        }),
        [""; 0]
    );
}

#[test]
fn cron_jobs() {
    let cron = |schedule: &str| json!({"metadata": {"name": "x", "namespace": "n"}, "spec": {"schedule": schedule, "jobTemplate": job()}});
    assert_eq!(created("batch/v1", "CronJob", cron("*/5 * * * *")), [""; 0]);
    assert_eq!(
        created("batch/v1", "CronJob", cron("nope")),
        ["spec.schedule: Invalid value: \"nope\": expected exactly 5 fields, found 1: [nope]"]
    );
    assert_eq!(
        created("batch/v1", "CronJob", cron("TZ=UTC 0 0 * * *")),
        [
            "spec.schedule: Invalid value: \"TZ=UTC 0 0 * * *\": cannot use TZ or CRON_TZ in schedule, use timeZone field \
             instead"
        ]
    );
}

fn service(spec: Value) -> Value {
    json!({"metadata": {"name": "s", "namespace": "n"}, "spec": spec})
}

#[test]
fn services() {
    assert_eq!(
        created("v1", "Service", service(json!({"ports": [{"port": 80}]}))),
        [""; 0]
    );
    assert_eq!(
        created("v1", "Service", service(json!({}))),
        ["spec.ports: Required value"]
    );
    assert_eq!(
        created("v1", "Service", service(json!({"type": "ExternalName"}))),
        ["spec.externalName: Required value"]
    );
    assert_eq!(
        created("v1", "Service", service(json!({"clusterIP": "None"}))),
        [""; 0]
    );
    assert_eq!(
        created(
            "v1",
            "Service",
            service(
                json!({"ports": [{"port": 80}, {"port": 80}], "clusterIP": "x",
            "externalIPs": ["127.0.0.1"]})
            )
        ),
        [
            "spec.ports[0].name: Required value",
            "spec.ports[1].name: Required value",
            "spec.clusterIPs[0]: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
            "spec.externalIPs[0]: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)",
            "spec.ports[1]: Duplicate value: {\"Name\":\"\",\"Protocol\":\"TCP\",\"AppProtocol\":null,\"Port\":80,\
             \"TargetPort\":0,\"NodePort\":0}",
        ]
    );
    let allocated = || {
        service(
            json!({"ports": [{"port": 80}], "clusterIP": "10.96.21.155", "ipFamilies": ["IPv4"],
        "ipFamilyPolicy": "SingleStack"}),
        )
    };
    assert_eq!(
        updated("v1", "Service", allocated(), |new| {
            new["spec"]["clusterIP"] = json!("10.96.7.7");
            new["spec"]["clusterIPs"] = json!(["10.96.7.7"]);
        }),
        ["spec.clusterIPs[0]: Invalid value: [\"10.96.7.7\"]: may not change once set"]
    );
    assert_eq!(
        updated("v1", "Service", allocated(), |new| {
            new["spec"] = json!({"type": "ExternalName", "externalName": "x.y", "sessionAffinity": "None",
                "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack", "internalTrafficPolicy": "Cluster"});
        }),
        [""; 0]
    );
}

#[test]
fn bindings_of_roles_keep_their_role() {
    let binding = json!({"metadata": {"name": "x", "namespace": "n"}, "roleRef": {"kind": "Role", "name": "r"},
        "subjects": [{"kind": "User", "name": "u"}]});
    assert_eq!(
        created(
            "rbac.authorization.k8s.io/v1",
            "RoleBinding",
            binding.clone()
        ),
        [""; 0]
    );
    assert_eq!(
        updated(
            "rbac.authorization.k8s.io/v1",
            "RoleBinding",
            binding,
            |new| new["roleRef"]["name"] = json!("other")
        ),
        [
            "roleRef: Invalid value: {\"APIGroup\":\"rbac.authorization.k8s.io\",\"Kind\":\"Role\",\"Name\":\"other\"}: \
             cannot change roleRef"
        ]
    );
    assert_eq!(
        created(
            "rbac.authorization.k8s.io/v1",
            "Role",
            json!({"metadata": {"name": "x", "namespace": "n"}, "rules":
            [{"verbs": ["get"], "nonResourceURLs": ["/x"]}, {}]})
        ),
        [
            "rules[0].nonResourceURLs: Invalid value: [\"/x\"]: namespaced rules cannot apply to non-resource URLs",
            "rules[1].verbs: Required value: verbs must contain at least one value",
            "rules[1].apiGroups: Required value: resource rules must supply at least one api group",
            "rules[1].resources: Required value: resource rules must supply at least one resource",
        ]
    );
}

#[test]
fn network_kinds() {
    assert_eq!(
        created(
            "networking.k8s.io/v1",
            "NetworkPolicy",
            json!({"metadata": {"name": "x", "namespace": "n"}, "spec":
            {"podSelector": {}, "ingress": [{"from": [{"ipBlock": {"cidr": "nope"}}]}]}})
        ),
        [
            "spec.ingress[0].from[0].ipBlock.cidr: Invalid value: \"nope\": must be a valid CIDR value, (e.g. 10.9.8.0/24 or \
             2001:db8::/64)"
        ]
    );
    assert_eq!(
        created(
            "networking.k8s.io/v1",
            "NetworkPolicy",
            json!({"metadata": {"name": "x", "namespace": "n"}, "spec":
            {"podSelector": {}, "egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16",
            "11.0.0.0/16", "10.0.0.0/8"]}}], "ports": [{"port": "web", "endPort": 5}]}]}})
        ),
        [
            "spec.egress[0].ports[0].endPort: Invalid value: 5: may not be specified when `port` is non-numeric",
            "spec.egress[0].to[0].ipBlock.except[1]: Invalid value: \"11.0.0.0/16\": must be a strict subset of `cidr`",
            "spec.egress[0].to[0].ipBlock.except[2]: Invalid value: \"10.0.0.0/8\": must be a strict subset of `cidr`",
        ]
    );
    assert_eq!(
        created(
            "networking.k8s.io/v1",
            "Ingress",
            json!({"metadata": {"name": "x", "namespace": "n"}, "spec": {"rules":
            [{"http": {"paths": [{"path": "x", "backend": {"service": {"name": "s", "port": {"number": 80}}}}]}}]}})
        ),
        ["spec.rules[0].http.paths[0].pathType: Required value: pathType must be specified"]
    );
}

#[test]
fn nodes_and_their_taints() {
    assert_eq!(
        created(
            "v1",
            "Node",
            json!({"metadata": {"name": "n"}, "spec": {"podCIDRs": ["10.0.0.0/24", "10.1.0.0/24"],
            "taints": [{"key": "a", "effect": "NoSchedule"}, {"key": "a", "effect": "NoSchedule"}, {"key": "b"}]}})
        ),
        [
            "metadata.taints[1]: Duplicate value: {\"Key\":\"a\",\"Value\":\"\",\"Effect\":\"NoSchedule\",\
             \"TimeAdded\":null}: taints must be unique by key and effect pair",
            "metadata.taints[2].effect: Required value",
            "spec.podCIDRs: Invalid value: [\"10.0.0.0/24\",\"10.1.0.0/24\"]: may specify no more than one CIDR for each IP \
             family",
        ]
    );
    assert_eq!(
        updated(
            "v1",
            "Node",
            json!({"metadata": {"name": "n"}, "spec": {"podCIDR": "10.0.0.0/24"}}),
            |new| {
                new["spec"] = json!({"podCIDR": "10.0.1.0/24"});
            }
        ),
        ["spec.podCIDRs: Forbidden: node updates may not change podCIDR except from \"\" to valid"]
    );
}

#[test]
fn storage_kinds() {
    assert_eq!(
        created(
            "v1",
            "PersistentVolume",
            json!({"metadata": {"name": "v"}, "spec": {"capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/tmp/x"}}})
        ),
        [""; 0]
    );
    let claim = || {
        json!({"metadata": {"name": "c", "namespace": "n"}, "spec": {"accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}}}})
    };
    assert_eq!(created("v1", "PersistentVolumeClaim", claim()), [""; 0]);
    assert_eq!(
        created(
            "v1",
            "PersistentVolumeClaim",
            json!({"metadata": {"name": "c", "namespace": "n"}, "spec": {}})
        ),
        [
            "spec.accessModes: Required value: at least 1 access mode is required",
            "spec.resources[storage]: Required value"
        ]
    );
    let errors = updated("v1", "PersistentVolumeClaim", claim(), |new| {
        new["spec"]["accessModes"] = json!(["ReadWriteMany"]);
    });
    assert!(errors[0].starts_with(
        "spec: Forbidden: spec is immutable after creation except resources.requests and volumeAttributesClassName for bound \
         claims\n  core.PersistentVolumeClaimSpec{\n"
    ));
    assert_eq!(
        updated(
            "storage.k8s.io/v1",
            "StorageClass",
            json!({"metadata": {"name": "x"}, "provisioner": "p.io/x"}),
            |new| new["provisioner"] = json!("q.io/x"),
        ),
        ["provisioner: Forbidden: updates to provisioner are forbidden."]
    );
}

#[test]
fn budgets_priorities_autoscalers_and_leases() {
    assert_eq!(
        created(
            "policy/v1",
            "PodDisruptionBudget",
            json!({"metadata": {"name": "x", "namespace": "n"}, "spec":
            {"minAvailable": "120%"}})
        ),
        ["spec.minAvailable: Invalid value: \"120%\": must not be greater than 100%"]
    );
    assert_eq!(
        created(
            "scheduling.k8s.io/v1",
            "PriorityClass",
            json!({"metadata": {"name": "system-x"}, "value": 1})
        ),
        [
            "metadata.name: Forbidden: priority class names with 'system-' prefix are reserved for system use only. error: \
             system-x is not a known system priority class"
        ]
    );
    assert_eq!(
        created(
            "autoscaling/v2",
            "HorizontalPodAutoscaler",
            json!({"metadata": {"name": "x", "namespace": "n"}, "spec":
            {"scaleTargetRef": {"kind": "Deployment", "name": "d"}, "minReplicas": 3, "maxReplicas": 1}})
        ),
        ["spec.maxReplicas: Invalid value: 1: must be greater than or equal to `minReplicas`"]
    );
    assert_eq!(
        created(
            "coordination.k8s.io/v1",
            "Lease",
            json!({"metadata": {"name": "x", "namespace": "n"}, "spec":
            {"leaseDurationSeconds": 0}})
        ),
        ["spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0"]
    );
}

#[test]
fn limits_and_quotas() {
    assert_eq!(
        created(
            "v1",
            "LimitRange",
            json!({"metadata": {"name": "x", "namespace": "n"}, "spec": {"limits":
            [{"type": "Container", "min": {"cpu": "2"}, "max": {"cpu": "1"}}]}})
        ),
        [
            "spec.limits[0].min[cpu]: Invalid value: \"2\": min value 2 is greater than max value 1",
            "spec.limits[0].defaultRequest[cpu]: Invalid value: \"1\": min value 2 is greater than default request value 1",
            "spec.limits[0].default[cpu]: Invalid value: \"2\": min value 2 is greater than default value 1",
        ]
    );
    assert_eq!(
        created(
            "v1",
            "ResourceQuota",
            json!({"metadata": {"name": "x", "namespace": "n"}, "spec": {"hard": {"foo": "1",
            "pods": "1500m"}}})
        ),
        [
            "spec.hard[foo]: Invalid value: \"foo\": must be a standard resource type or fully qualified",
            "spec.hard[foo]: Invalid value: \"foo\": must be a standard resource for quota",
            "spec.hard[pods]: Invalid value: \"1500m\": must be an integer",
        ]
    );
}

#[test]
fn slices_of_endpoints() {
    assert_eq!(
        created(
            "discovery.k8s.io/v1",
            "EndpointSlice",
            json!({"metadata": {"name": "x", "namespace": "n"},
            "addressType": "IPv4", "endpoints": [{"addresses": ["fd00::1"]}, {"addresses": []}], "ports": []})
        ),
        [
            "endpoints[0].addresses[0]: Invalid value: \"fd00::1\": must be a valid IPv4 address",
            "endpoints[1].addresses: Required value: must contain at least 1 address",
        ]
    );
    assert_eq!(
        updated(
            "discovery.k8s.io/v1",
            "EndpointSlice",
            json!({"metadata": {"name": "x", "namespace": "n"}, "addressType": "IPv4", "endpoints": []}),
            |new| new["addressType"] = json!("IPv6"),
        ),
        ["addressType: Invalid value: \"IPv6\": field is immutable"]
    );
}
