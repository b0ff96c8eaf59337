use std::future::Future;
use std::os::unix::fs::PermissionsExt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::StreamExt;
use orlop_core::client::{DeleteOptions, Operation, Patch, WatchEvent, WatchOptions};
use orlop_core::env::{SimEnv, TaskGroup};
use orlop_core::object::Object;
use orlop_core::resource::Resource;
use orlop_core::testing::FakeApi;
use orlop_wire::pki::CertificateRequest;
use serde_json::json;

use super::*;

const REQUESTS: Resource = Resource::cluster(
    "certificates.k8s.io",
    "v1",
    "certificatesigningrequests",
    "CertificateSigningRequest",
);
const DAY: Duration = Duration::from_secs(86_400);

/// Signs every request for a day, after a minute.
fn signer(group: &TaskGroup, api: &FakeApi, authority: Arc<CertificateAuthority>) {
    let (env, client) = (group.env().clone(), api.client());
    group.spawn_until_cancelled("signer", async move {
        let requests = client.resource(&REQUESTS);
        let mut changes = requests.watch(WatchOptions::default()).await.unwrap();
        while let Some(Ok(change)) = changes.next().await {
            let WatchEvent::Added(object) = change else {
                continue;
            };
            let (asked, usages) = asked(&object);
            assert_eq!(asked.common_name, "system:node:n1");
            assert_eq!(asked.organizations, ["system:nodes"]);
            env.sleep(Duration::from_secs(60)).await;
            let usages = usages.iter().map(String::as_str);
            let certificate = authority
                .sign_request(&asked, usages, env.wall(), DAY)
                .unwrap();
            let status = json!({"conditions": [{"type": "Approved", "status": "True"}],
                "certificate": STANDARD.encode(certificate)});
            answer(&client, object.name(), status).await;
        }
    });
}

fn asked(object: &Object) -> (CertificateRequest, Vec<String>) {
    let spec = object.value().unwrap()["spec"].clone();
    let text = STANDARD.decode(spec["request"].as_str().unwrap()).unwrap();
    let asked = CertificateRequest::from_pem(&String::from_utf8(text).unwrap()).unwrap();
    let (signer, usage) = if asked.dns_names.is_empty() {
        ("kubernetes.io/kube-apiserver-client-kubelet", "client auth")
    } else {
        ("kubernetes.io/kubelet-serving", "server auth")
    };
    assert_eq!(spec["signerName"], signer);
    assert_eq!(spec["usages"], json!(["digital signature", usage]));
    (asked, vec!["digital signature".into(), usage.into()])
}

async fn answer(client: &Arc<dyn Client>, name: &str, status: serde_json::Value) {
    let patch = Patch::Merge(json!({"status": status}));
    client.resource(&REQUESTS).patch(name, patch).await.unwrap();
}

fn run<F: Future<Output = ()> + Send + 'static>(test: impl FnOnce(Env) -> F) {
    let sim = SimEnv::new(9);
    sim.block_on(test(sim.env()));
}

fn authority(env: &Env) -> Arc<CertificateAuthority> {
    Arc::new(CertificateAuthority::create("kubernetes", env.wall(), 3650 * DAY).unwrap())
}

#[test]
fn a_machine_gets_an_identity_and_keeps_it() {
    run(|env| async move {
        let dir = tempfile::tempdir().unwrap();
        let (api, group, ca) = (
            FakeApi::new(env.clone()),
            TaskGroup::new(env.clone()),
            authority(&env),
        );
        signer(&group, &api, ca.clone());
        let store = CertificateStore::client(dir.path().join("pki"));
        let kubeconfig = dir.path().join("kubelet.conf");
        let server = ClientConfig {
            server: "https://10.0.0.1:6443".into(),
            certificate_authority: Some(ca.certificate_pem().to_owned()),
            ..ClientConfig::default()
        };
        let client = api.client();
        let boot = async || {
            bootstrap(&env, &client, &server, "n1", &store, &kubeconfig)
                .await
                .unwrap()
        };
        let config = boot().await;
        assert_eq!(
            (&config.server, &config.certificate_authority),
            (&server.server, &server.certificate_authority)
        );
        let pair = config.credentials.certificate.clone().unwrap();
        let identity = CertificateIdentity::from_pem(&pair.certificate).unwrap();
        assert_eq!(identity.common_name, "system:node:n1");
        assert_eq!(store.current().unwrap(), Some(pair));
        for path in [store.current_path(), kubeconfig.clone()] {
            assert_eq!(
                std::fs::metadata(path).unwrap().permissions().mode() & 0o777,
                0o600
            );
        }
        assert!(
            std::fs::read_to_string(&kubeconfig)
                .unwrap()
                .contains("kubelet-client-current.pem")
        );
        assert_eq!(boot().await, config);
        assert_eq!(api.objects(&REQUESTS).len(), 1, "it is not asked for again");
        env.sleep(2 * DAY).await;
        assert_ne!(boot().await, config, "but when it has expired");
        assert_eq!(
            std::fs::read_dir(dir.path().join("pki")).unwrap().count(),
            2,
            "a certificate and a link"
        );
        group.shutdown().await;
    });
}

#[test]
fn who_is_refused_is_told_why() {
    run(|env| async move {
        let api = FakeApi::new(env.clone());
        let client = api.client();
        let decide = async |status: serde_json::Value| {
            let (env, client) = (env.clone(), client.clone());
            let asking = request(&env, &client, "n1", &Purpose::Client);
            let deciding = async {
                env.sleep(Duration::from_secs(1)).await;
                let name = api.objects(&REQUESTS).last().unwrap().name().to_owned();
                answer(&client, &name, status).await;
                name
            };
            let (asked, name) = futures::join!(asking, deciding);
            let error = asked.unwrap_err().to_string();
            let all = client.resource(&REQUESTS);
            let _ = all.delete(&name, DeleteOptions::default()).await;
            error.replace(&name, "X")
        };
        let denied = json!({"conditions": [{"type": "Denied", "status": "True", "reason": "No", "message": "not you"}]});
        let want = "certificate signing request X is denied, reason: \"No\", message: \"not you\"";
        assert_eq!(decide(denied).await, want);
        let failed = json!({"conditions": [{"type": "Approved"}, {"type": "Failed", "reason": "A", "message": "b"}]});
        let want = "certificate signing request X failed, reason: \"A\", message: \"b\"";
        assert_eq!(decide(failed).await, want);
        let before = env.now();
        let late = request(&env, &client, "n1", &Purpose::Client).await;
        assert!(matches!(late, Err(CertificateError::Late(_))), "{late:?}");
        assert_eq!(env.now().since(before), Duration::from_secs(900));
        api.refuse(1, |_| Some(Status::failure(403, "Forbidden", "no")));
        let forbidden = request(&env, &client, "n1", &Purpose::Client).await;
        assert!(
            matches!(forbidden, Err(CertificateError::Api(_))),
            "{forbidden:?}"
        );
    });
}

#[test]
fn certificates_are_renewed_before_they_expire() {
    run(|env| async move {
        let dir = tempfile::tempdir().unwrap();
        let (api, group) = (FakeApi::new(env.clone()), TaskGroup::new(env.clone()));
        signer(&group, &api, authority(&env));
        let names = vec![SubjectName::from("n1"), SubjectName::from("10.0.0.1")];
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (log, clock, client) = (seen.clone(), env.clone(), api.client());
        // The first request fails; that is tried again.
        api.refuse(1, |request| {
            let creates = matches!(request.operation, Operation::Create(..));
            creates.then(|| Status::unavailable("starting"))
        });
        let manager = |names: Vec<SubjectName>| {
            let (log, clock, client) = (log.clone(), clock.clone(), client.clone());
            Arc::new(CertificateManager::new(
                env.clone(),
                "n1",
                Purpose::Serving(names),
                CertificateStore::serving(dir.path()),
                Arc::new(move || client.clone()),
                Arc::new(move |pair| {
                    let identity = CertificateIdentity::from_pem(&pair.certificate).unwrap();
                    assert!(identity.covers(["n1", "10.0.0.1"]));
                    assert!(identity.is_valid_at(clock.wall()));
                    log.lock().push(clock.now().since_start().as_secs());
                }),
            ))
        };
        let first = manager(names.clone());
        assert_eq!(first.current(), None);
        let (task, token) = (first.clone(), group.token().child());
        let stop = token.clone();
        group.spawn("certificate", async move { task.run(token).await });
        env.sleep(5 * DAY).await;
        let times = seen.lock().clone();
        assert!((5..=7).contains(&times.len()), "{times:?}");
        assert!(times[0] < 120);
        for pair in times.windows(2) {
            let hours = (pair[1] - pair[0]) / 3600;
            assert!((16..=22).contains(&hours), "{times:?}");
        }
        // Another one takes what is there, and asks anew for other names.
        stop.cancel();
        let asked = api.objects(&REQUESTS).len();
        let second = manager(names.clone());
        let (task, token) = (second.clone(), group.token());
        group.spawn("certificate", async move { task.run(token).await });
        env.sleep(Duration::from_secs(10)).await;
        assert_eq!(second.current(), first.current());
        assert_eq!(api.objects(&REQUESTS).len(), asked);
        let mut more = names;
        more.push(SubjectName::from("n1.example"));
        let third = manager(more);
        let (task, token) = (third.clone(), group.token());
        group.spawn("certificate", async move { task.run(token).await });
        env.sleep(Duration::from_secs(120)).await;
        assert_ne!(
            third.current().unwrap().certificate,
            second.current().unwrap().certificate
        );
        group.shutdown().await;
    });
}

#[test]
fn what_nobody_vouches_for_is_kept_too() {
    let dir = tempfile::tempdir().unwrap();
    let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    let names = [SubjectName::from("n1"), SubjectName::from("10.0.0.1")];
    let make = |names: &[SubjectName], now| self_signed(dir.path(), "n1", names, now).unwrap();
    let pair = make(&names, now);
    assert_eq!(pair.chain().unwrap().len(), 2);
    let identity = CertificateIdentity::from_pem(&pair.certificate).unwrap();
    assert_eq!(identity.common_name, "n1@1767225600");
    assert!(identity.covers(["n1", "10.0.0.1"]));
    assert_eq!(make(&names[..1], now), pair);
    let other = make(&[SubjectName::from("n2")], now);
    assert_ne!(other, pair);
    let later = now + 400 * DAY;
    assert_ne!(make(&[SubjectName::from("n2")], later), other);
}
