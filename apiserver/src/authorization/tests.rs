use orlop_core::env::SimEnv;
use serde_json::{Value, json};

use super::*;
use crate::names::{
    CLUSTER_ROLE_BINDINGS, CLUSTER_ROLES, NODES, PODS, ROLE_BINDINGS, ROLES, SECRETS,
};
use crate::testing::Objects;

fn role(namespace: &str, name: &str, rules: Value) -> Value {
    json!({"metadata": {"name": name, "namespace": namespace}, "rules": rules})
}

fn binding(namespace: &str, name: &str, role: (&str, &str), subjects: Value) -> Value {
    json!({"metadata": {"name": name, "namespace": namespace}, "roleRef": {"kind": role.0, "name": role.1}, "subjects": subjects})
}

fn objects() -> Arc<Objects> {
    Objects::new([
        (
            CLUSTER_ROLES,
            role(
                "",
                "reader",
                json!([
                    {"apiGroups": [""], "resources": ["pods", "pods/log"], "verbs": ["get", "list"]},
                    {"apiGroups": ["apps"], "resources": ["*/scale"], "verbs": ["get"]},
                    {"nonResourceURLs": ["/metrics", "/healthz*"], "verbs": ["get"]},
                ]),
            ),
        ),
        (
            ROLES,
            role(
                "pr",
                "one",
                json!([
                    {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["c1"], "verbs": ["*"]},
                    {"apiGroups": ["*"], "resources": ["*"], "verbs": ["watch"]},
                ]),
            ),
        ),
        (
            CLUSTER_ROLE_BINDINGS,
            binding(
                "",
                "a-readers",
                ("ClusterRole", "reader"),
                json!([
                    {"kind": "Group", "name": "readers"}, {"kind": "User", "name": "ann"},
                ]),
            ),
        ),
        (
            CLUSTER_ROLE_BINDINGS,
            binding(
                "",
                "z-broken",
                ("ClusterRole", "gone"),
                json!([{"kind": "User", "name": "max"}]),
            ),
        ),
        (
            ROLE_BINDINGS,
            binding(
                "pr",
                "one",
                ("Role", "one"),
                json!([
                    {"kind": "User", "name": "bob"}, {"kind": "ServiceAccount", "name": "robot"},
                ]),
            ),
        ),
        (
            ROLE_BINDINGS,
            binding(
                "pr",
                "two",
                ("ClusterRole", "reader"),
                json!([
                    {"kind": "ServiceAccount", "name": "robot", "namespace": "other"},
                ]),
            ),
        ),
    ])
}

fn ask(
    user: &UserInfo,
    verb: &str,
    group: &str,
    resource: &str,
    namespace: &str,
    name: &str,
) -> Attributes {
    let mut attributes = Attributes::resource(user, verb, group, resource, namespace, name);
    if let Scope::Resource {
        resource,
        subresource,
        ..
    } = &mut attributes.scope
        && let Some((of, sub)) = resource.clone().split_once('/')
    {
        *resource = of.to_owned();
        *subresource = sub.to_owned();
    }
    attributes
}

fn path(user: &UserInfo, path: &str) -> Attributes {
    let (scope, field_selector) = (Scope::Path(path.to_owned()), String::new());
    Attributes {
        user: user.clone(),
        verb: "get".to_owned(),
        scope,
        field_selector,
    }
}

#[tokio::test]
async fn roles_allow_what_they_say() {
    let rbac = RbacAuthorizer::new(objects());
    let (ann, bob) = (UserInfo::new("ann", ["readers"]), UserInfo::new("bob", []));
    let member = UserInfo::new("eve", ["x", "readers"]);
    let robot = UserInfo::service_account("pr", "robot");
    let cases = [
        (
            ask(&ann, "get", "", "pods", "pr", "po"),
            r#"RBAC: allowed by ClusterRoleBinding "a-readers" of ClusterRole "reader" to Group "readers""#,
        ),
        (
            ask(&UserInfo::new("ann", []), "get", "", "pods/log", "", "po"),
            r#"RBAC: allowed by ClusterRoleBinding "a-readers" of ClusterRole "reader" to User "ann""#,
        ),
        (
            ask(&member, "get", "apps", "deployments/scale", "pr", "d"),
            r#"RBAC: allowed by ClusterRoleBinding "a-readers" of ClusterRole "reader" to Group "readers""#,
        ),
        (
            path(&member, "/metrics"),
            r#"RBAC: allowed by ClusterRoleBinding "a-readers" of ClusterRole "reader" to Group "readers""#,
        ),
        (
            path(&member, "/healthz/etcd"),
            r#"RBAC: allowed by ClusterRoleBinding "a-readers" of ClusterRole "reader" to Group "readers""#,
        ),
        (
            ask(&bob, "delete", "", "configmaps", "pr", "c1"),
            r#"RBAC: allowed by RoleBinding "one/pr" of Role "one" to User "bob""#,
        ),
        (
            ask(&robot, "watch", "apps", "deployments", "pr", ""),
            r#"RBAC: allowed by RoleBinding "one/pr" of Role "one" to ServiceAccount "robot/pr""#,
        ),
        (
            ask(
                &UserInfo::service_account("other", "robot"),
                "list",
                "",
                "pods",
                "pr",
                "",
            ),
            r#"RBAC: allowed by RoleBinding "two/pr" of ClusterRole "reader" to ServiceAccount "robot/other""#,
        ),
    ];
    for (attributes, reason) in cases {
        assert_eq!(
            rbac.authorize(&attributes).await,
            Decision::Allow(reason.to_owned())
        );
    }
    for refused in [
        ask(&ann, "delete", "", "pods", "pr", "po"),
        ask(&ann, "get", "", "pods/exec", "pr", "po"),
        ask(&ann, "get", "apps", "pods", "pr", "po"),
        ask(&ann, "get", "apps", "deployments", "pr", "d"),
        ask(&bob, "delete", "", "configmaps", "pr", "c2"),
        ask(&bob, "create", "", "configmaps", "pr", ""),
        ask(&bob, "delete", "", "configmaps", "other", "c1"),
        ask(&robot, "get", "", "pods", "pr", ""),
        path(&ann, "/metricsx"),
        path(&bob, "/metrics"),
    ] {
        assert_eq!(
            rbac.authorize(&refused).await,
            Decision::NoOpinion(String::new()),
            "{refused:?}"
        );
    }
    let broken = ask(&UserInfo::new("max", []), "get", "", "pods", "pr", "po");
    let reason = r#"RBAC: clusterrole.rbac.authorization.k8s.io "gone" not found"#;
    assert_eq!(
        rbac.authorize(&broken).await,
        Decision::NoOpinion(reason.to_owned())
    );
}

#[tokio::test]
async fn a_change_is_seen_by_the_next_request() {
    let objects = objects();
    let rbac = RbacAuthorizer::new(objects.clone());
    let max = UserInfo::new("max", []);
    let question = ask(&max, "get", "", "secrets", "pr", "s");
    assert!(matches!(
        rbac.authorize(&question).await,
        Decision::NoOpinion(_)
    ));
    objects.put(
        &CLUSTER_ROLES,
        role(
            "",
            "gone",
            json!([{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}]),
        ),
    );
    assert!(matches!(
        rbac.authorize(&question).await,
        Decision::Allow(_)
    ));
    objects.remove(&CLUSTER_ROLE_BINDINGS, "", "z-broken");
    assert!(matches!(
        rbac.authorize(&question).await,
        Decision::NoOpinion(_)
    ));
}

#[test]
fn refusals_read_as_kubernetes_writes_them() {
    let bob = UserInfo::new("bob", []);
    let cases = [
        (
            ask(&bob, "list", "", "pods", "pr", ""),
            "",
            r#"pods is forbidden: User "bob" cannot list resource "pods" in API group "" in the namespace "pr""#,
        ),
        (
            ask(&bob, "get", "", "pods/log", "pr", "po"),
            "",
            r#"pods "po" is forbidden: User "bob" cannot get resource "pods/log" in API group "" in the namespace "pr""#,
        ),
        (
            ask(&bob, "get", "apps", "deployments", "", ""),
            "why",
            r#"deployments.apps is forbidden: User "bob" cannot get resource "deployments" in API group "apps" at the cluster scope: why"#,
        ),
        (
            path(&bob, "/metrics"),
            "",
            r#"forbidden: User "bob" cannot get path "/metrics""#,
        ),
    ];
    for (attributes, reason, message) in cases {
        let status = forbidden(&attributes, reason);
        assert_eq!((status.code, status.message.as_str()), (403, message));
    }
    let details = forbidden(&ask(&bob, "list", "", "pods", "pr", ""), "")
        .details
        .unwrap();
    assert_eq!((details.kind.as_str(), details.name.as_str()), ("pods", ""));
}

#[test]
fn the_uncovered_rest_of_rules_is_found() {
    let rules = |value: Value| serde_json::from_value::<Vec<PolicyRule>>(value).unwrap();
    let owned = rules(json!([
        {"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods", "*/scale"]},
        {"verbs": ["*"], "apiGroups": ["apps"], "resources": ["deployments"], "resourceNames": ["d"]},
        {"verbs": ["get"], "nonResourceURLs": ["/api/*"]},
    ]));
    let covered = [
        json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"], "resourceNames": ["p"]}]),
        json!([{"verbs": ["list"], "apiGroups": [""], "resources": ["rc/scale", "*/scale"]}]),
        json!([{"verbs": ["delete"], "apiGroups": ["apps"], "resources": ["deployments"], "resourceNames": ["d"]}]),
        json!([{"verbs": ["get"], "nonResourceURLs": ["/api/v1", "/api/v1/*"]}]),
        json!([{"verbs": [], "apiGroups": ["x"], "resources": ["y"]}]),
    ];
    for rule in covered {
        assert_eq!(covers(&owned, &rules(rule.clone())), [], "{rule}");
    }
    let missing = [
        json!([{"verbs": ["get", "delete"], "apiGroups": [""], "resources": ["pods"]}]),
        json!([{"verbs": ["get"], "apiGroups": ["*"], "resources": ["pods"]}]),
        json!([{"verbs": ["get"], "apiGroups": ["apps"], "resources": ["deployments"]}]),
        json!([{"verbs": ["get"], "nonResourceURLs": ["/*"]}]),
    ];
    for rule in missing {
        assert_eq!(covers(&owned, &rules(rule.clone())).len(), 1, "{rule}");
    }
    assert_eq!(covers(&PolicyRule::everything(), &owned), []);
}

#[tokio::test]
async fn nobody_grants_what_they_do_not_hold() {
    use orlop_core::admission::{AdmissionOperation, AdmissionPlugin, AdmissionRequest};

    let objects = objects();
    let rbac = Arc::new(RbacAuthorizer::new(objects.clone()));
    let check = EscalationCheck::new(rbac, objects.clone());
    let free = EscalationCheck::new(Arc::new(AlwaysAllow), objects);
    let ann = UserInfo::new("ann", ["a", "b"]);
    let write = |resource: &Resource, object: &Value| AdmissionRequest {
        operation: AdmissionOperation::Create,
        resource: resource.clone(),
        subresource: String::new(),
        namespace: if resource.namespaced {
            "pr".to_owned()
        } else {
            String::new()
        },
        name: object["metadata"]["name"].as_str().unwrap().to_owned(),
        user: ann.clone(),
        dry_run: false,
        object: object.clone(),
        old_object: Arc::default(),
        warnings: Vec::new(),
    };
    let wanted = |rules: Value| json!({"metadata": {"name": "new"}, "rules": rules});
    let pods = json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}]);
    assert_eq!(
        check
            .validate(&write(&CLUSTER_ROLES, &wanted(pods.clone())))
            .await,
        Ok(())
    );
    let more = write(
        &CLUSTER_ROLES,
        &wanted(json!([
            {"apiGroups": [""], "resources": ["pods", "secrets"], "verbs": ["get", "delete"]},
            {"nonResourceURLs": ["/logs"], "verbs": ["get"]},
        ])),
    );
    assert_eq!(
        check.validate(&more).await.unwrap_err().message,
        "clusterroles.rbac.authorization.k8s.io \"new\" is forbidden: user \"ann\" (groups=[\"a\" \"b\"]) is attempting to grant RBAC permissions not currently held:\n\
         {APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"delete\"]}\n\
         {APIGroups:[\"\"], Resources:[\"secrets\"], Verbs:[\"get\" \"delete\"]}\n\
         {NonResourceURLs:[\"/logs\"], Verbs:[\"get\"]}"
    );
    assert_eq!(free.validate(&more).await, Ok(()), "may escalate");
    let old = Arc::new(more.object.clone());
    let same = AdmissionRequest {
        operation: AdmissionOperation::Update,
        old_object: old,
        ..more.clone()
    };
    assert_eq!(check.validate(&same).await, Ok(()), "nothing new");
    let root = AdmissionRequest {
        user: UserInfo::new("root", ["system:masters"]),
        ..more
    };
    assert_eq!(check.validate(&root).await, Ok(()));
    let mut gathers = wanted(pods);
    gathers["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]});
    assert_eq!(
        check
            .validate(&write(&CLUSTER_ROLES, &gathers))
            .await
            .unwrap_err()
            .message,
        r#"clusterroles.rbac.authorization.k8s.io "new" is forbidden: must have cluster-admin privileges to use the aggregationRule"#
    );

    let bind = async |kind: &str, name: &str| {
        let object = json!({"metadata": {"name": "b"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name}});
        check.validate(&write(&ROLE_BINDINGS, &object)).await
    };
    assert_eq!(bind("ClusterRole", "reader").await, Ok(()));
    assert_eq!(
        bind("Role", "one").await.unwrap_err().message,
        "rolebindings.rbac.authorization.k8s.io \"b\" is forbidden: user \"ann\" (groups=[\"a\" \"b\"]) is attempting to grant RBAC permissions not currently held:\n\
         {APIGroups:[\"\"], Resources:[\"configmaps\"], ResourceNames:[\"c1\"], Verbs:[\"*\"]}\n\
         {APIGroups:[\"*\"], Resources:[\"*\"], Verbs:[\"watch\"]}"
    );
    assert_eq!(
        bind("ClusterRole", "nope").await.unwrap_err().message,
        r#"clusterroles.rbac.authorization.k8s.io "nope" not found"#
    );
}

#[test]
fn aggregated_roles_gather_by_label() {
    let object = |name: &str, label: &str, verb: &str| {
        orlop_core::object::Object::from_value(json!({
            "metadata": {"name": name, "labels": {label: "true"}},
            "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": [verb]}],
        }))
        .unwrap()
    };
    let mut view = object("view", "to-edit", "nothing")
        .value()
        .unwrap()
        .as_ref()
        .clone();
    view["aggregationRule"] = json!({"clusterRoleSelectors": [
        {"matchLabels": {"to-view": "true"}},
        {"matchExpressions": [{"key": "extra", "operator": "Exists"}]},
    ]});
    let view = orlop_core::object::Object::from_value(view).unwrap();
    let all = [
        object("z", "to-view", "get"),
        object("b", "extra", "list"),
        object("a", "to-view", "watch"),
        object("c", "to-view", "get"),
        view.clone(),
    ];
    let verbs: Vec<String> = aggregate(&view, &all)
        .unwrap()
        .into_iter()
        .flat_map(|rule| rule.verbs)
        .collect();
    assert_eq!(
        verbs,
        ["watch", "get", "list"],
        "in the order of names, selector by selector, each once"
    );
    assert_eq!(aggregate(&all[0], &all), None);
}

#[test]
fn a_node_reads_what_its_pods_need() {
    let node = |name: &str| {
        UserInfo::new(
            &format!("system:node:{name}"),
            ["system:nodes", "system:authenticated"],
        )
    };
    let pod = |name: &str, node: &str, secret: &str| {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "pr"}, "spec": {
            "nodeName": node, "serviceAccountName": "robot",
            "containers": [{"name": "c", "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": secret, "key": "k"}}}],
                "envFrom": [{"configMapRef": {"name": "cm"}}]}],
            "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}],
        }})
    };
    let mut mirror = pod("mirror", "a", "stolen");
    mirror["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "x"});
    let reader = Objects::new([
        (PODS, pod("pa", "a", "sa")),
        (PODS, pod("pb", "b", "sb")),
        (PODS, mirror),
        (NODES, json!({"metadata": {"name": "a"}})),
        (
            SECRETS,
            json!({"metadata": {"name": "sa", "namespace": "pr"}}),
        ),
        (
            crate::names::PERSISTENT_VOLUMES,
            json!({"metadata": {"name": "vol"}, "spec": {
            "claimRef": {"namespace": "pr", "name": "data"}, "csi": {"nodeStageSecretRef": {"namespace": "kube", "name": "csi"}}}}),
        ),
        (
            crate::names::PERSISTENT_VOLUME_CLAIMS,
            json!({"metadata": {"name": "data", "namespace": "pr"}, "spec": {"volumeName": "vol"}}),
        ),
    ]);
    let authorizer = NodeAuthorizer::new(reader, crate::bootstrap::node_rules());
    let sim = SimEnv::new(1);
    sim.block_on(async move {
        let a = node("a");
        let mut listed = ask(&a, "list", "", "pods", "", "");
        listed.field_selector = "spec.nodeName=a".to_owned();
        for allowed in [
            listed,
            ask(&a, "get", "", "secrets", "pr", "sa"),
            ask(&a, "get", "", "secrets", "kube", "csi"),
            ask(&a, "watch", "", "configmaps", "pr", "cm"),
            ask(&a, "get", "", "persistentvolumeclaims", "pr", "data"),
            ask(&a, "get", "", "persistentvolumes", "", "vol"),
            ask(&a, "create", "", "serviceaccounts/token", "pr", "robot"),
            ask(&a, "get", "", "pods", "pr", "pa"),
            ask(&a, "patch", "", "pods/status", "pr", "pa"),
            ask(&a, "get", "", "nodes", "", "a"),
            ask(&a, "patch", "", "nodes/status", "", "a"),
            ask(
                &a,
                "update",
                "coordination.k8s.io",
                "leases",
                "kube-node-lease",
                "a",
            ),
            ask(&a, "list", "", "services", "", ""),
            ask(&a, "create", "", "events", "pr", ""),
        ] {
            assert_eq!(
                authorizer.authorize(&allowed).await,
                Decision::Allow(String::new()),
                "{allowed:?}"
            );
        }
        let no_relationship = "no relationship found between node 'a' and this object";
        for (refused, reason) in [
            (ask(&a, "get", "", "secrets", "pr", "sb"), no_relationship),
            (
                ask(&a, "get", "", "secrets", "pr", "stolen"),
                no_relationship,
            ),
            (
                ask(&a, "get", "", "secrets", "other", "sa"),
                no_relationship,
            ),
            (ask(&a, "get", "", "pods", "pr", "pb"), no_relationship),
            (
                ask(&a, "delete", "", "secrets", "pr", "sa"),
                "can only read resources of this type",
            ),
            (
                ask(&a, "list", "", "secrets", "pr", ""),
                "No Object name found",
            ),
            (
                ask(&a, "list", "", "pods", "", ""),
                "can only list/watch pods with spec.nodeName field selector",
            ),
            (
                ask(&a, "get", "", "nodes", "", "b"),
                "node 'a' cannot read 'b', only its own Node object",
            ),
            (
                ask(&a, "list", "", "nodes", "", ""),
                "node 'a' cannot read all nodes, only its own Node object",
            ),
            (
                ask(&a, "get", "coordination.k8s.io", "leases", "x", "a"),
                r#"can only access leases in the "kube-node-lease" system namespace"#,
            ),
            (ask(&a, "delete", "apps", "deployments", "pr", "d"), ""),
            (
                ask(
                    &UserInfo::new("system:node:", ["system:nodes"]),
                    "get",
                    "",
                    "secrets",
                    "pr",
                    "sa",
                ),
                r#"unknown node for user "system:node:""#,
            ),
            (
                ask(
                    &UserInfo::new("system:node:a", []),
                    "get",
                    "",
                    "secrets",
                    "pr",
                    "sa",
                ),
                "",
            ),
        ] {
            assert_eq!(
                authorizer.authorize(&refused).await,
                Decision::NoOpinion(reason.to_owned()),
                "{refused:?}"
            );
        }
    });
}

mod laws {
    use proptest::prelude::*;

    use super::*;

    fn words(from: &'static [&'static str]) -> impl Strategy<Value = Vec<String>> {
        prop::collection::vec(prop::sample::select(from).prop_map(str::to_owned), 0..3)
    }

    fn rule() -> impl Strategy<Value = PolicyRule> {
        const VERBS: &[&str] = &["get", "list", "*"];
        const GROUPS: &[&str] = &["", "apps", "*"];
        const RESOURCES: &[&str] = &["pods", "pods/log", "*/log", "*", "secrets"];
        const NAMES: &[&str] = &["a", "b"];
        const PATHS: &[&str] = &["/x", "/x/*", "/x/y", "*"];
        let resource = (words(VERBS), words(GROUPS), words(RESOURCES), words(NAMES));
        prop_oneof![
            resource.prop_map(
                |(verbs, api_groups, resources, resource_names)| PolicyRule {
                    verbs,
                    api_groups,
                    resources,
                    resource_names,
                    ..PolicyRule::default()
                }
            ),
            (words(VERBS), words(PATHS)).prop_map(|(verbs, non_resource_urls)| PolicyRule {
                verbs,
                non_resource_urls,
                ..PolicyRule::default()
            }),
        ]
    }

    /// Every request of a small world.
    fn requests() -> Vec<Attributes> {
        let user = UserInfo::default();
        let mut all: Vec<Attributes> = ["/x", "/x/", "/x/y", "/z"]
            .into_iter()
            .map(|asked| path(&user, asked))
            .collect();
        for verb in ["get", "list", "delete"] {
            for group in ["", "apps", "other"] {
                for resource in ["pods", "pods/log", "secrets", "nodes/log", "nodes"] {
                    all.extend(
                        ["a", "b", "c", ""].map(|name| ask(&user, verb, group, resource, "", name)),
                    );
                }
            }
        }
        all
    }

    proptest! {
        #[test]
        fn covered_rules_allow_nothing_more(
            owned in prop::collection::vec(rule(), 0..4),
            wanted in prop::collection::vec(rule(), 0..3),
        ) {
            let both: Vec<PolicyRule> = owned.iter().chain(&wanted).cloned().collect();
            prop_assert_eq!(covers(&both, &wanted), [], "whoever holds a rule covers it");
            let missing = covers(&owned, &wanted);
            for request in requests() {
                let may = |rules: &[PolicyRule]| rules.iter().any(|rule| rule.allows(&request));
                if may(&wanted) {
                    prop_assert!(may(&owned) || may(&missing), "{:?}", request);
                }
            }
        }
    }
}
