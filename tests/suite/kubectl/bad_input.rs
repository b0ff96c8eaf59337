//! What people get wrong, and what they are told: Kubernetes' own words.

use super::WEB;
use crate::support::{Kubectl, Server};

const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";

/// The Deployment alone, with one thing replaced.
fn wrong(from: &str, to: &str) -> String {
    let deployment = WEB.split("---").next().unwrap();
    assert!(deployment.contains(from));
    deployment.replacen(from, to, 1)
}

#[test]
fn bad_manifests_are_refused() {
    if !Kubectl::is_there("bad_manifests_are_refused") {
        return;
    }
    let server = Server::start(&["--without", "scheduler,nodes"]);
    let kubectl = Kubectl::in_new(&server, "bad");
    let refused = |line: &str, manifest: &str, error: &str| {
        kubectl.file("bad.yaml", manifest);
        kubectl.refused(line, error);
    };
    let unknown = wrong("replicas: 3", "replikas: 3");
    refused(
        "create -f bad.yaml",
        &unknown,
        "Error from server (BadRequest): error when creating \"bad.yaml\": Deployment in version \"v1\" cannot be handled as a Deployment: strict decoding error: unknown field \"spec.replikas\"",
    );
    refused(
        "apply --server-side -f bad.yaml",
        &unknown,
        "Error from server (BadRequest): strict decoding error: unknown field \"spec.replikas\"",
    );
    let three = wrong("replicas: 3", "replicas: three");
    let type_error = "Error from server (BadRequest): error when creating \"bad.yaml\": Deployment in version \"v1\" cannot be handled as a Deployment: json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32";
    refused("create -f bad.yaml", &three, type_error);
    refused("create --validate=false -f bad.yaml", &three, type_error);
    refused(
        "create -f bad.yaml",
        &wrong("name: web", "name: Web_1"),
        &format!(
            "The Deployment \"Web_1\" is invalid: metadata.name: Invalid value: \"Web_1\": {SUBDOMAIN}"
        ),
    );
    refused(
        "create -f bad.yaml",
        &wrong("matchLabels: {app: web}", "matchLabels: {app: other}"),
        "The Deployment \"web\" is invalid: spec.template.metadata.labels: Invalid value: {\"app\":\"web\"}: `selector` does not match template `labels`",
    );
    refused(
        "create -f bad.yaml",
        &wrong("image: nginx:1.27", "imagePullPolicy: Sometimes"),
        "The Deployment \"web\" is invalid: \n* spec.template.spec.containers[0].image: Required value\n* spec.template.spec.containers[0].imagePullPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"IfNotPresent\", \"Never\"",
    );
    refused(
        "apply -n nowhere -f bad.yaml",
        &wrong("replicas: 3", "replicas: 3"),
        "Error from server (NotFound): error when creating \"bad.yaml\": namespaces \"nowhere\" not found",
    );
    kubectl.refused(
        "create configmap m -n nowhere",
        "error: failed to create configmap: namespaces \"nowhere\" not found",
    );
    refused(
        "apply -f bad.yaml",
        "a: b\n  c: d\n",
        "error: error parsing bad.yaml: error converting YAML to JSON: yaml: line 2: mapping values are not allowed in this context",
    );
    refused(
        "apply -f bad.yaml",
        "{\"apiVersion\":\"v1\",",
        "error: error parsing bad.yaml: unexpected EOF",
    );
    refused(
        "apply -f bad.yaml",
        "{\"apiVersion\": \"example.com/v1\", \"kind\": \"Foo\", \"metadata\": {\"name\": \"m\"}}",
        "error: resource mapping not found for name: \"m\" namespace: \"\" from \"bad.yaml\": no matches for kind \"Foo\" in version \"example.com/v1\"\nensure CRDs are installed first",
    );
    // A warning, where one is asked for.
    kubectl.file("bad.yaml", &unknown);
    let warned = kubectl.run("apply --validate=warn -f bad.yaml");
    assert!(warned.status.success());
    assert_eq!(
        String::from_utf8_lossy(&warned.stderr),
        "Warning: unknown field \"spec.replikas\"\n"
    );
}

#[test]
fn bad_changes_are_refused() {
    if !Kubectl::is_there("bad_changes_are_refused") {
        return;
    }
    let server = Server::start(&["--without", "scheduler,nodes"]);
    let kubectl = Kubectl::in_new(&server, "bad");
    kubectl.file("web.yaml", WEB);
    kubectl.ok("apply -f web.yaml");
    kubectl.ok("create configmap m --from-literal=a=b");

    kubectl.file("selector.yaml", &WEB.replace("{app: web}", "{app: other}"));
    let error = kubectl.fails("apply -f selector.yaml");
    assert!(
        error.contains("The Deployment \"web\" is invalid: spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"other\"}}: field is immutable"),
        "{error}"
    );
    let stale = kubectl
        .ok("get configmap m -o yaml")
        .replace("a: b", "a: c");
    kubectl.ok("label configmap m x=y");
    kubectl.file("stale.yaml", &stale);
    kubectl.refused(
        "replace -f stale.yaml",
        "Error from server (Conflict): error when replacing \"stale.yaml\": Operation cannot be fulfilled on configmaps \"m\": the object has been modified; please apply your changes to the latest version and try again",
    );
    kubectl.file(
        "other.yaml",
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m}\ndata: {a: z}\n",
    );
    let conflict = kubectl.fails("apply --server-side --field-manager=other -f other.yaml");
    assert!(
        conflict.starts_with("error: Apply failed with 1 conflict: conflict with \"kubectl-create\" using v1: .data.a\n"),
        "{conflict}"
    );
    kubectl.ok("apply --server-side --field-manager=other --force-conflicts -f other.yaml");
    assert_eq!(kubectl.ok("get configmap m -o jsonpath='{.data.a}'"), "z");

    for (patch, error) in [
        (
            "--type=json -p '[{\"op\":\"remove\",\"path\":\"/data/nope\"}]'",
            "The request is invalid: the server rejected our request due to an error in our request",
        ),
        (
            "--type=json -p '{\"op\":\"remove\"}'",
            "Error from server (BadRequest): error decoding patch: json: cannot unmarshal object into Go value of type []handlers.jsonPatchOp",
        ),
        (
            "--type=merge -p '{\"data\":'",
            "Error from server (BadRequest): error decoding patch: unexpected end of JSON input",
        ),
        (
            "-p '{\"data\":'",
            "Error from server (BadRequest): unexpected end of JSON input",
        ),
        (
            "-p '{\"data\":{\"a\":[1,null]}}'",
            "The request is invalid: patch: Invalid value: \"map[data:map[a:[1 <nil>]]]\": json: cannot unmarshal array into Go struct field ConfigMap.data of type string",
        ),
        (
            "--type=json -p '[{\"op\":\"replace\",\"path\":\"/metadata/name\",\"value\":\"n\"}]'",
            "The ConfigMap \"n\" is invalid: metadata.name: Invalid value: \"n\": field is immutable",
        ),
    ] {
        let said = kubectl.fails(&format!("patch configmap m {patch}"));
        if error.starts_with("The ConfigMap \"n\"") {
            assert!(
                said.contains("the name of the object (n) does not match the name on the URL (m)"),
                "{said}"
            );
        } else {
            assert_eq!(said, error, "{patch}");
        }
    }
    kubectl.refused(
        "patch deploy web -p '{\"spec\":{\"replicas\":-1}}'",
        "The Deployment \"web\" is invalid: spec.replicas: Invalid value: -1: must be greater than or equal to 0",
    );
    let label = kubectl.fails("label configmap m 'bad key=x'");
    assert!(label.starts_with("The ConfigMap \"m\" is invalid: metadata.labels: Invalid value: \"bad key\": name part must consist of"), "{label}");

    kubectl.file("huge.txt", &"x".repeat(3_500_000));
    kubectl.refused(
        "create configmap huge --from-file=huge.txt",
        "error: failed to create configmap: Request entity too large: limit is 3145728",
    );
    kubectl.file("large.txt", &"x".repeat(2_000_000));
    kubectl.refused(
        "create configmap large --from-file=large.txt",
        "error: failed to create configmap: ConfigMap \"large\" is invalid: []: Too long: may not be more than 1048576 bytes",
    );
    kubectl.refused(
        "create service clusterip far --tcp=80:80 --clusterip=1.2.3.4",
        "error: failed to create ClusterIP service: Service \"far\" is invalid: spec.clusterIPs: Invalid value: [\"1.2.3.4\"]: failed to allocate IP 1.2.3.4: the provided network does not match the current range",
    );
}

#[test]
fn bad_questions_are_refused() {
    if !Kubectl::is_there("bad_questions_are_refused") {
        return;
    }
    let server = Server::start(&["--without", "scheduler,nodes"]);
    let kubectl = Kubectl::new(&server);
    for (line, error) in [
        (
            "get configmap nope",
            "Error from server (NotFound): configmaps \"nope\" not found",
        ),
        (
            "get deployment nope",
            "Error from server (NotFound): deployments.apps \"nope\" not found",
        ),
        (
            "get nosuchkind",
            "error: the server doesn't have a resource type \"nosuchkind\"",
        ),
        (
            "get pods.v9.example.com",
            "error: the server doesn't have a resource type \"pods\"",
        ),
        (
            "get pods -l 'a in (b'",
            "Error from server (BadRequest): Unable to find \"/v1, Resource=pods\" that match label selector \"a in (b\", field selector \"\": unable to parse requirement: found '', expected: ',' or ')'",
        ),
        (
            "get pods --field-selector spec.foo=bar",
            "Error from server (BadRequest): Unable to find \"/v1, Resource=pods\" that match label selector \"\", field selector \"spec.foo=bar\": field label not supported: spec.foo",
        ),
        (
            "delete configmap nope",
            "Error from server (NotFound): configmaps \"nope\" not found",
        ),
        (
            "patch configmap nope -p '{}'",
            "Error from server (NotFound): configmaps \"nope\" not found",
        ),
        (
            "get --raw /nothing",
            "Error from server (NotFound): the server could not find the requested resource",
        ),
        (
            "get pods --as=jane",
            "Error from server (Forbidden): pods is forbidden: User \"jane\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\"",
        ),
    ] {
        kubectl.refused(line, error);
    }
}
