use super::*;

fn value(document: &Document) -> Value {
    serde_json::from_slice(&document.bytes).unwrap()
}

#[test]
fn the_index_lists_every_group_and_version_with_its_hash() {
    let documents = Documents::builtin();
    let index = value(documents.index());
    let paths = index["paths"].as_object().unwrap();
    for path in [
        "api",
        "api/v1",
        "apis",
        "apis/apps",
        "apis/apps/v1",
        "apis/autoscaling/v2",
        "version",
    ] {
        let document = documents.get(path).unwrap();
        let url = format!("/openapi/v3/{path}?hash={}", document.hash);
        assert_eq!(paths[path]["serverRelativeURL"], url);
        assert_eq!(document.hash.len(), 128);
    }
    assert!(documents.get("apis/nope/v1").is_none());
}

/// What kubectl 1.32 looks for before it leaves validation to the server.
#[test]
fn every_patch_says_that_it_validates_fields() {
    for (path, _) in by_path(resources::builtin()) {
        let document = value(Documents::builtin().get(&path).unwrap());
        for (path, item) in document["paths"].as_object().unwrap() {
            let Some(patch) = item
                .get("patch")
                .filter(|op| op["x-kubernetes-action"] == "patch")
            else {
                continue;
            };
            for name in ["fieldValidation", "dryRun", "fieldManager", "force"] {
                assert!(
                    patch["parameters"]
                        .as_array()
                        .unwrap()
                        .iter()
                        .any(|p| p["name"] == name),
                    "{path}: {name}"
                );
            }
            assert!(patch["x-kubernetes-group-version-kind"]["kind"].is_string());
        }
    }
}

/// What `kubectl explain` looks for: the list of the resource, and its kind among the schemas.
#[test]
fn every_listed_kind_can_be_explained() {
    for info in resources::builtin()
        .iter()
        .filter(|info| info.allows(crate::resources::Verb::List))
    {
        let r = &info.resource;
        let path = r
            .path(None)
            .rsplit_once('/')
            .unwrap()
            .0
            .trim_start_matches('/')
            .to_owned();
        let document = value(Documents::builtin().get(&path).unwrap());
        let url = r.path(r.namespaced.then_some("{namespace}"));
        let list = &document["paths"][&url]["get"];
        assert_eq!(list["x-kubernetes-action"], "list");
        let kind = json!({"group": r.group, "version": r.version, "kind": r.kind});
        assert_eq!(list["x-kubernetes-group-version-kind"], kind);
        let schema = &document["components"]["schemas"][schema::definition_name(&r.gvk())];
        assert!(
            schema["x-kubernetes-group-version-kind"]
                .as_array()
                .unwrap()
                .contains(&kind),
            "{kind}"
        );
    }
}

fn check_references(value: &Value, prefix: &str, among: &Value) {
    match value {
        Value::Object(map) => {
            if let Some(Value::String(to)) = map.get("$ref") {
                let name = to.strip_prefix(prefix).unwrap_or_else(|| panic!("{to}"));
                assert!(among.get(name).is_some(), "{name}");
            }
            map.values()
                .for_each(|value| check_references(value, prefix, among));
        }
        Value::Array(items) => items
            .iter()
            .for_each(|value| check_references(value, prefix, among)),
        _ => {}
    }
}

#[test]
fn references_stay_inside_their_document() {
    for document in Documents::builtin().documents.values() {
        let document = value(document);
        check_references(
            &document,
            "#/components/schemas/",
            &document["components"]["schemas"],
        );
    }
    let document = value(builtin_v2());
    check_references(&document, "#/definitions/", &document["definitions"]);
}

#[test]
fn operations_have_upstreams_names() {
    let core = value(Documents::builtin().get("api/v1").unwrap());
    let paths = &core["paths"];
    let id = |path: &str, method: &str| {
        paths[path][method]["operationId"]
            .as_str()
            .unwrap_or("none")
            .to_owned()
    };
    let pods = "/api/v1/namespaces/{namespace}/pods";
    assert_eq!(id(pods, "get"), "listCoreV1NamespacedPod");
    assert_eq!(id(pods, "post"), "createCoreV1NamespacedPod");
    assert_eq!(id(pods, "delete"), "deleteCoreV1CollectionNamespacedPod");
    assert_eq!(id("/api/v1/pods", "get"), "listCoreV1PodForAllNamespaces");
    let pod = format!("{pods}/{{name}}");
    assert_eq!(id(&pod, "get"), "readCoreV1NamespacedPod");
    assert_eq!(id(&pod, "put"), "replaceCoreV1NamespacedPod");
    assert_eq!(
        id(&format!("{pod}/status"), "patch"),
        "patchCoreV1NamespacedPodStatus"
    );
    assert_eq!(
        id(&format!("{pod}/eviction"), "post"),
        "createCoreV1NamespacedPodEviction"
    );
    assert_eq!(
        id(&format!("{pod}/exec"), "get"),
        "connectCoreV1GetNamespacedPodExec"
    );
    assert_eq!(
        id(&format!("{pod}/proxy/{{path}}"), "put"),
        "connectCoreV1PutNamespacedPodProxyWithPath"
    );
    assert_eq!(
        id("/api/v1/namespaces/{name}/finalize", "put"),
        "replaceCoreV1NamespaceFinalize"
    );
    let exec = &paths[format!("{pod}/exec")]["get"]["parameters"];
    assert!(
        exec.as_array()
            .unwrap()
            .iter()
            .any(|p| p["name"] == "tty" && p["schema"]["type"] == "boolean")
    );
    let rbac = value(
        Documents::builtin()
            .get("apis/rbac.authorization.k8s.io/v1")
            .unwrap(),
    );
    let roles = &rbac["paths"]["/apis/rbac.authorization.k8s.io/v1/clusterroles"]["get"];
    assert_eq!(roles["operationId"], "listRbacAuthorizationV1ClusterRole");
    assert_eq!(roles["tags"], json!(["rbacAuthorization_v1"]));
}

#[test]
fn version_two_has_its_own_dialect() {
    let document = value(builtin_v2());
    assert_eq!(document["swagger"], "2.0");
    let definitions = &document["definitions"];
    let template = &definitions["io.k8s.api.apps.v1.DeploymentSpec"]["properties"]["template"];
    assert_eq!(
        template["$ref"],
        "#/definitions/io.k8s.api.core.v1.PodTemplateSpec"
    );
    assert!(template["description"].is_string() && template.get("allOf").is_none());
    let int_or_string = &definitions["io.k8s.apimachinery.pkg.util.intstr.IntOrString"];
    assert_eq!(
        (&int_or_string["type"], &int_or_string["format"]),
        (&json!("string"), &json!("int-or-string"))
    );
    assert_eq!(
        definitions["io.k8s.apimachinery.pkg.api.resource.Quantity"]["type"],
        "string"
    );
    let protocol = &definitions["io.k8s.api.core.v1.ContainerPort"]["properties"]["protocol"];
    assert!(protocol.get("default").is_none());
    // A property that is named like a keyword stays.
    assert!(
        definitions["io.k8s.api.core.v1.LimitRangeItem"]["properties"]["default"]["description"]
            .is_string()
    );
    let containers = &definitions["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
    assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
}
