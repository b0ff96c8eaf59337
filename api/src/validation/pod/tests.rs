use super::*;
use serde_json::json;

fn base() -> Value {
    json!({
        "metadata": {"name": "p", "namespace": "n", "resourceVersion": "1"},
        "spec": {
            "containers": [{
                "name": "c", "image": "i", "imagePullPolicy": "Always", "terminationMessagePolicy": "File",
                "terminationMessagePath": "/dev/termination-log", "resources": {}
            }],
            "restartPolicy": "Always", "dnsPolicy": "ClusterFirst", "terminationGracePeriodSeconds": 30,
            "securityContext": {}, "schedulerName": "default-scheduler"
        }
    })
}

fn texts(errors: &Errors) -> Vec<String> {
    errors.0.iter().map(ToString::to_string).collect()
}

fn created(change: impl FnOnce(&mut Value)) -> Vec<String> {
    let mut pod = base();
    change(&mut pod);
    let mut errors = Errors::new();
    create(&mut errors, &pod);
    texts(&errors)
}

fn updated(change: impl FnOnce(&mut Value)) -> Vec<String> {
    let old = base();
    let mut new = base();
    change(&mut new);
    let mut errors = Errors::new();
    update(&mut errors, &new, &old);
    texts(&errors)
}

#[test]
fn a_plain_pod_is_fine() {
    assert_eq!(created(|_| {}), [""; 0]);
    assert_eq!(
        updated(|pod| pod["spec"]["containers"][0]["image"] = json!("j")),
        [""; 0]
    );
}

#[test]
fn many_mistakes_come_in_upstreams_order() {
    let errors = created(|pod| {
        pod["spec"]["restartPolicy"] = json!("Foo");
        let container = &mut pod["spec"]["containers"][0];
        container["name"] = json!("C_");
        container["image"] = json!("");
        container["resources"] = json!({"requests": {"cpu": "2"}, "limits": {"cpu": "1"}});
        container["volumeMounts"] = json!([{"name": "nov", "mountPath": "x:y"}]);
    });
    assert_eq!(
        errors,
        [
            "spec.containers[0].name: Invalid value: \"C_\": a lowercase RFC 1123 label must consist of lower case \
             alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or \
             '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
            "spec.containers[0].image: Required value",
            "spec.containers[0].volumeMounts[0].name: Not found: \"nov\"",
            "spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1",
            "spec.restartPolicy: Unsupported value: \"Foo\": supported values: \"Always\", \"OnFailure\", \"Never\"",
        ]
    );
}

#[test]
fn an_empty_spec_needs_containers() {
    let errors = created(|pod| pod["spec"]["containers"] = json!([]));
    assert_eq!(errors, ["spec.containers: Required value"]);
}

#[test]
fn only_a_few_fields_change() {
    let errors = updated(|pod| pod["spec"]["restartPolicy"] = json!("Never"));
    assert_eq!(errors.len(), 1);
    assert!(errors[0].starts_with(
        "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,\
         `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing \
         tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)\n  \
         core.PodSpec{\n"
    ));
    assert!(errors[0].contains("- \tRestartPolicy: \"Always\",\n+ \tRestartPolicy: \"Never\",\n"));
}

#[test]
fn containers_stay_and_tolerations_only_grow() {
    let errors = updated(|pod| {
        pod["spec"]["containers"] =
            json!([pod["spec"]["containers"][0], pod["spec"]["containers"][0]])
    });
    assert!(errors.contains(
        &"spec.containers: Forbidden: pod updates may not add or remove containers".to_owned()
    ));
    assert_eq!(
        updated(|pod| pod["spec"]["tolerations"] = json!([{"key": "z", "operator": "Exists"}])),
        [""; 0]
    );
}

#[test]
fn probes_hooks_ports_and_variables() {
    let errors = created(|pod| {
        let container = &mut pod["spec"]["containers"][0];
        container["livenessProbe"] = json!({"successThreshold": 2});
        container["ports"] = json!([{"containerPort": 0, "protocol": "TCP"},
            {"containerPort": 80, "hostPort": 70000, "protocol": "X"}]);
        container["env"] = json!([{"name": "a=b"}, {"name": "A", "valueFrom": {"fieldRef":
            {"apiVersion": "v1", "fieldPath": "metadata.labels"}}}]);
        container["lifecycle"] = json!({"preStop": {"sleep": {"seconds": 60}}});
    });
    assert_eq!(
        errors,
        [
            "spec.containers[0].ports[0].containerPort: Required value",
            "spec.containers[0].ports[1].hostPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
            "spec.containers[0].ports[1].protocol: Unsupported value: \"X\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
            "spec.containers[0].env[0].name: Invalid value: \"a=b\": a valid environment variable name must consist only of \
             printable ASCII characters other than '='",
            "spec.containers[0].env[1].valueFrom.fieldRef.fieldPath: Unsupported value: \"metadata.labels\": supported \
             values: \"metadata.name\", \"metadata.namespace\", \"metadata.uid\", \"spec.nodeName\", \
             \"spec.serviceAccountName\", \"status.hostIP\", \"status.hostIPs\", \"status.podIP\", \"status.podIPs\"",
            "spec.containers[0].lifecycle.preStop.sleep: Invalid value: 60: must be non-negative and less than \
             terminationGracePeriodSeconds (30)",
            "spec.containers[0].livenessProbe: Required value: must specify a handler type",
            "spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1",
        ]
    );
}

#[test]
fn volumes_have_one_source_and_a_name() {
    let errors = created(|pod| {
        pod["spec"]["volumes"] = json!([
            {"name": "a", "emptyDir": {}, "hostPath": {"path": "/x", "type": ""}},
            {"name": "b"},
            {"name": "c", "configMap": {"name": "m", "defaultMode": 1000}},
            {"name": "d", "projected": {"sources": [{"downwardAPI": {"items": [{"path": "../x"}]}}]}},
        ]);
    });
    assert_eq!(
        errors,
        [
            "spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type",
            "spec.volumes[1]: Required value: must specify a volume type",
            "spec.volumes[2].configMap.defaultMode: Invalid value: 1000: must be a number between 0 and 0777 (octal), both \
             inclusive",
            "spec.volumes[3].projected.sources[0].downwardAPI.path: Invalid value: \"../x\": must not contain '..'",
            "spec.volumes[3].projected.sources[0].downwardAPI: Required value: one of fieldRef and resourceFieldRef is \
             required",
        ]
    );
}

#[test]
fn scheduling_constraints() {
    let errors = created(|pod| {
        pod["spec"]["tolerations"] = json!([{"operator": "Equal", "tolerationSeconds": 1}]);
        pod["spec"]["affinity"] = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
            {"nodeSelectorTerms": [{"matchExpressions": [{"key": "a", "operator": "In"}]}]}}});
        pod["spec"]["topologySpreadConstraints"] =
            json!([{"maxSkew": 0, "topologyKey": "z", "whenUnsatisfiable": "X"}]);
    });
    assert_eq!(
        errors,
        [
            "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].\
             matchExpressions[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'",
            "spec.topologySpreadConstraints[0].maxSkew: Invalid value: 0: must be greater than zero",
            "spec.topologySpreadConstraints[0].whenUnsatisfiable: Unsupported value: \"X\": supported values: \
             \"DoNotSchedule\", \"ScheduleAnyway\"",
            "spec.tolerations[0].operator: Invalid value: \"Equal\": operator must be Exists when `key` is empty, which \
             means \"match all values and all keys\"",
            "spec.tolerations[0].effect: Invalid value: \"\": effect must be 'NoExecute' when `tolerationSeconds` is set",
        ]
    );
}

#[test]
fn a_resize_keeps_the_quality_of_service() {
    let mut old = base();
    old["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": "1", "memory": "1Gi"},
        "limits": {"cpu": "1", "memory": "1Gi"}});
    old["status"] = json!({"qosClass": "Guaranteed"});
    let mut new = old.clone();
    new["spec"]["containers"][0]["resources"]["requests"]["cpu"] = json!("500m");
    let mut errors = Errors::new();
    resize(&mut errors, &new, &old);
    assert_eq!(
        texts(&errors),
        [
            "spec: Invalid value: \"Guaranteed\": Pod QOS Class may not change as a result of resizing"
        ]
    );
    new["spec"]["containers"][0]["resources"]["limits"]["cpu"] = json!("500m");
    let mut errors = Errors::new();
    resize(&mut errors, &new, &old);
    assert_eq!(texts(&errors), [""; 0]);
}

#[test]
fn ephemeral_containers_are_bare_and_stay() {
    let old = base();
    let mut new = base();
    new["spec"]["ephemeralContainers"] = json!([{"name": "e", "image": "b", "imagePullPolicy": "Always",
        "terminationMessagePolicy": "File", "ports": [{"containerPort": 1, "protocol": "TCP"}]}]);
    let mut errors = Errors::new();
    ephemeral_containers(&mut errors, &new, &old);
    assert_eq!(
        texts(&errors),
        ["spec.ephemeralContainers[0].ports: Forbidden: cannot be set for an Ephemeral Container"]
    );
    let mut errors = Errors::new();
    ephemeral_containers(&mut errors, &old, &new);
    assert_eq!(
        texts(&errors),
        [
            "spec.ephemeralContainers: Forbidden: existing ephemeral containers \"e\" may not be removed\n"
        ]
    );
}

#[test]
fn a_binding_names_a_node() {
    let mut errors = Errors::new();
    binding(&mut errors, &json!({"target": {"kind": "Foo"}}));
    assert_eq!(
        texts(&errors),
        [
            "target.kind: Unsupported value: \"Foo\": supported values: \"Node\", \"<empty>\"",
            "target.name: Required value"
        ]
    );
}

#[test]
fn who_may_leave_its_end() {
    let spec = json!({"restartPolicy": "Never",
        "initContainers": [{"name": "i"}, {"name": "s", "restartPolicy": "Always"}],
        "containers": [{"name": "plain"}, {"name": "fails", "restartPolicy": "OnFailure"}, {"name": "rule", "restartPolicy": "Never",
            "restartPolicyRules": [{"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}]}]});
    let pod = |list: &str, name: &str, state: Value| {
        let mut pod = base();
        pod["spec"] = spec.clone();
        pod["status"] = json!({list: [{"name": name, "state": state}]});
        pod
    };
    let refused = |list: &str, name: &str, code: i32| {
        let old = pod(list, name, json!({"terminated": {"exitCode": code}}));
        let new = pod(
            list,
            name,
            json!({"waiting": {"reason": "CrashLoopBackOff"}}),
        );
        let mut errors = Errors::new();
        super::update::status(&mut errors, &new, &old);
        !texts(&errors).is_empty()
    };
    for (list, name, code, expected) in [
        ("containerStatuses", "plain", 1, true),
        ("containerStatuses", "fails", 1, false),
        ("containerStatuses", "fails", 0, true),
        ("containerStatuses", "rule", 42, false),
        ("containerStatuses", "rule", 1, true),
        ("containerStatuses", "gone", 1, true),
        ("initContainerStatuses", "i", 0, true),
        ("initContainerStatuses", "s", 0, false),
    ] {
        assert_eq!(refused(list, name, code), expected, "{name} {code}");
    }
}
