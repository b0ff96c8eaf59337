//! What kubectl makes itself, in protobuf, and who may do what.

use serde_json::json;

use crate::support::{Kubectl, Server};

#[test]
fn every_generator_makes_its_kind() {
    if !Kubectl::is_there("every_generator_makes_its_kind") {
        return;
    }
    let server = Server::start(&[]);
    let kubectl = Kubectl::in_new(&server, "made");
    for (line, made) in [
        ("job once --image=busybox -- true", "job.batch/once"),
        (
            "cronjob tick --image=busybox --schedule='*/5 * * * *' -- date",
            "cronjob.batch/tick",
        ),
        ("job ticked --from=cronjob/tick", "job.batch/ticked"),
        (
            "configmap settings --from-literal=a=b",
            "configmap/settings",
        ),
        ("secret generic hidden --from-literal=a=b", "secret/hidden"),
        (
            "secret docker-registry pull --docker-server=r --docker-username=u --docker-password=p",
            "secret/pull",
        ),
        ("quota few --hard=pods=10,services=5", "resourcequota/few"),
        (
            "role reader --verb=get,list --resource=pods,configmaps",
            "role.rbac.authorization.k8s.io/reader",
        ),
        (
            "rolebinding readers --role=reader --serviceaccount=made:bot",
            "rolebinding.rbac.authorization.k8s.io/readers",
        ),
        (
            "clusterrole nodes --verb=get --resource=nodes",
            "clusterrole.rbac.authorization.k8s.io/nodes",
        ),
        (
            "clusterrolebinding nodes --clusterrole=nodes --user=jane",
            "clusterrolebinding.rbac.authorization.k8s.io/nodes",
        ),
        ("serviceaccount bot", "serviceaccount/bot"),
        (
            "deployment web --image=nginx --replicas=2 --port=80",
            "deployment.apps/web",
        ),
        ("service clusterip plain --tcp=80:8080", "service/plain"),
        (
            "service nodeport open --tcp=80:8080 --node-port=30080",
            "service/open",
        ),
        (
            "service externalname far --external-name=example.com",
            "service/far",
        ),
        (
            "service loadbalancer balanced --tcp=80:8080",
            "service/balanced",
        ),
        (
            "ingress door --rule=example.com/path=plain:80",
            "ingress.networking.k8s.io/door",
        ),
        (
            "poddisruptionbudget calm --selector=app=web --min-available=1",
            "poddisruptionbudget.policy/calm",
        ),
        (
            "priorityclass high --value=1000 --description=soon",
            "priorityclass.scheduling.k8s.io/high",
        ),
        ("namespace made-too", "namespace/made-too"),
    ] {
        assert_eq!(
            kubectl.ok(&format!("create {line}")),
            format!("{made} created\n"),
            "create {line}"
        );
    }
    // What was sent in protobuf is what is read in JSON.
    let cronjob = kubectl.json("get cronjob tick");
    assert_eq!(cronjob["spec"]["schedule"], "*/5 * * * *");
    let container = &cronjob["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(
        (&container["name"], &container["command"]),
        (&json!("tick"), &json!(["date"]))
    );
    assert_eq!(
        kubectl.json("get configmap settings")["data"],
        json!({"a": "b"})
    );
    assert_eq!(
        kubectl.json("get secret hidden")["data"],
        json!({"a": "Yg=="})
    );
    assert_eq!(
        kubectl.json("get quota few")["spec"]["hard"],
        json!({"pods": "10", "services": "5"})
    );
    let rules = &kubectl.json("get role reader")["rules"];
    assert_eq!(
        rules,
        &json!([{"apiGroups": [""], "resources": ["pods", "configmaps"], "verbs": ["get", "list"]}])
    );
    let subjects = &kubectl.json("get rolebinding readers")["subjects"];
    assert_eq!(
        subjects,
        &json!([{"kind": "ServiceAccount", "name": "bot", "namespace": "made"}])
    );
    let open = kubectl.json("get service open");
    assert_eq!(
        open["spec"]["ports"],
        json!([{"name": "80-8080", "nodePort": 30080, "port": 80, "protocol": "TCP", "targetPort": 8080}])
    );
    let path = &kubectl.json("get ingress door")["spec"]["rules"][0]["http"]["paths"][0];
    assert_eq!(
        path["backend"]["service"],
        json!({"name": "plain", "port": {"number": 80}})
    );
    assert_eq!(kubectl.json("get pdb calm")["spec"]["minAvailable"], 1);
    assert_eq!(kubectl.json("get priorityclass high")["value"], 1000);

    kubectl.ok("wait --for=condition=Complete job/once job/ticked --timeout 90s");
    let job = kubectl.ok("get job once --no-headers");
    assert_eq!(
        job.split_whitespace().collect::<Vec<_>>()[..3],
        ["once", "Complete", "1/1"]
    );
    assert!(
        kubectl
            .ok("rollout status deploy/web --timeout 90s")
            .contains("successfully rolled out")
    );
    kubectl.refused(
        "create configmap settings",
        "error: failed to create configmap: configmaps \"settings\" already exists",
    );
}

#[test]
fn tokens_and_rights() {
    if !Kubectl::is_there("tokens_and_rights") {
        return;
    }
    let server = Server::start(&["--without", "scheduler,nodes"]);
    let kubectl = Kubectl::in_new(&server, "made");
    assert_eq!(kubectl.ok("auth can-i create pods"), "yes\n");
    let jane = kubectl.run("auth can-i create pods --as=jane");
    assert_eq!(
        (jane.stdout.as_slice(), jane.status.code()),
        (b"no\n".as_slice(), Some(1))
    );
    let me = kubectl.json("auth whoami");
    assert_eq!(me["status"]["userInfo"]["username"], "kubernetes-admin");
    assert_eq!(
        me["status"]["userInfo"]["groups"],
        json!(["system:masters", "system:authenticated"])
    );

    kubectl.ok("create serviceaccount bot");
    kubectl.ok("create role reader --verb=get,list --resource=pods");
    kubectl.ok("create rolebinding readers --role=reader --serviceaccount=made:bot");
    assert_eq!(
        kubectl.ok("auth can-i list pods --as=system:serviceaccount:made:bot"),
        "yes\n"
    );
    let rights = kubectl.ok("auth can-i --list --as=system:serviceaccount:made:bot");
    assert!(
        rights.lines().any(|line| line
            .split_whitespace()
            .eq(["pods", "[]", "[]", "[get", "list]"])),
        "{rights}"
    );

    let token = kubectl.ok("create token bot --duration=20m");
    let token = token.trim();
    let authority = kubectl
        .ok("config view --raw -o jsonpath='{.clusters[0].cluster.certificate-authority-data}'");
    kubectl.file(
        "bot.kubeconfig",
        &json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "bot",
            "clusters": [{"name": "c", "cluster": {"server": server.url(), "certificate-authority-data": authority}}],
            "users": [
                {"name": "bot", "user": {"token": token}},
                {"name": "liar", "user": {"token": "no-such-token"}},
            ],
            "contexts": [
                {"name": "bot", "context": {"cluster": "c", "user": "bot"}},
                {"name": "liar", "context": {"cluster": "c", "user": "liar"}},
            ],
        })
        .to_string(),
    );
    let bot = |line: &str| format!("--kubeconfig bot.kubeconfig {line}");
    let who = kubectl.json(&bot("auth whoami"));
    assert_eq!(
        who["status"]["userInfo"]["username"],
        "system:serviceaccount:made:bot"
    );
    assert_eq!(kubectl.json(&bot("get pods"))["items"], json!([]));
    kubectl.refused(
        &bot("get secrets"),
        "Error from server (Forbidden): secrets is forbidden: User \"system:serviceaccount:made:bot\" cannot list resource \"secrets\" in API group \"\" in the namespace \"made\"",
    );
    kubectl.refused(
        &bot("get node sim-0"),
        "Error from server (Forbidden): nodes \"sim-0\" is forbidden: User \"system:serviceaccount:made:bot\" cannot get resource \"nodes\" in API group \"\" at the cluster scope",
    );
    kubectl.refused(
        &bot("create configmap m"),
        "error: failed to create configmap: configmaps is forbidden: User \"system:serviceaccount:made:bot\" cannot create resource \"configmaps\" in API group \"\" in the namespace \"made\"",
    );
    kubectl.refused(
        &bot("get pods --context liar"),
        "error: You must be logged in to the server (Unauthorized)",
    );
    // The token goes with its account.
    kubectl.ok("delete serviceaccount bot");
    kubectl.refused(
        &bot("get pods"),
        "error: You must be logged in to the server (Unauthorized)",
    );
}
