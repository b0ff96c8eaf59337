//! `orlop up` as a process: how it begins, how it ends, what it leaves.

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use orlop::core::client::{Client, ListOptions};
use orlop::core::env::Env;
use orlop::core::resource::Resource;
use orlop::core::revision::Revision;
use orlop::wire::kubeconfig::{Credentials, Token};
use orlop::wire::remote::{RemoteClient, RemoteOptions};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Raw, Server, run_to_end};

const MAPS: Resource = Resource::namespaced("", "v1", "configmaps", "ConfigMap");
const PODS: Resource = Resource::namespaced("", "v1", "pods", "Pod");
const NODES: Resource = Resource::cluster("", "v1", "nodes", "Node");

fn directory() -> Arc<TempDir> {
    Arc::new(
        tempfile::Builder::new()
            .prefix("orlop-test-")
            .tempdir()
            .unwrap(),
    )
}

fn client(server: &Server) -> Arc<dyn Client> {
    Arc::new(RemoteClient::new(&server.config(), &Env::tokio()).unwrap())
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// The one line of somebody who gives up.
#[track_caller]
fn gives_up(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(error.lines().count(), 1, "{error}");
    assert!(error.starts_with("orlop: "), "{error}");
    error
}

// A thread for the connections, which end while the test waits for the process.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_second_start_finds_everything_again() {
    let directory = directory();
    let server = Server::start_in(&directory, &[]);
    assert!(
        server.said.contains("durable") && server.said.contains("3, simulated"),
        "{}",
        server.said
    );
    let data = server.data();
    assert_eq!(mode(&data), 0o700);
    assert_eq!(mode(&server.kubeconfig()), 0o600);
    let made = client(&server)
        .resource(&MAPS)
        .namespace("default")
        .create(&json!({"metadata": {"name": "kept"}, "data": {"a": "b"}}))
        .await
        .unwrap();
    let kubeconfig = std::fs::read_to_string(server.kubeconfig()).unwrap();
    let authority = server.config().certificate_authority;
    let credentials = server.config().credentials;

    let second = run_to_end(&data, &[]);
    assert!(gives_up(&second).contains("another orlop uses the directory"));

    assert_eq!(server.stop().code(), Some(0));
    assert_eq!(
        std::fs::read_to_string(data.join("kubeconfig")).unwrap(),
        kubeconfig,
        "it stays where it is"
    );

    let server = Server::start_in(&directory, &[]);
    let found = client(&server)
        .resource(&MAPS)
        .namespace("default")
        .get("kept")
        .await
        .unwrap();
    assert_eq!(found.json(), made.json());
    assert_eq!(server.config().certificate_authority, authority);
    assert_eq!(server.config().credentials, credentials);
    let again = client(&server)
        .resource(&MAPS)
        .namespace("default")
        .create(&json!({"metadata": {"name": "later"}}))
        .await
        .unwrap();
    assert!(again.revision() > made.revision());
    // One cluster, with one set of nodes.
    let nodes = client(&server)
        .resource(&NODES)
        .list(ListOptions::default())
        .await
        .unwrap();
    assert_eq!(nodes.items.len(), 3);
    server.signal("INT");
    let mut server = server;
    assert_eq!(server.wait().code(), Some(0));
    assert_eq!(server.stderr(), "orlop: stopping\n");
}

#[test]
fn what_cannot_be_is_said_in_one_line() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");

    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let error = gives_up(&run_to_end(&data, &["--listen", &address]));
    assert!(
        error.contains(&address) && error.contains("in use"),
        "{error}"
    );

    let file = directory.path().join("file");
    std::fs::write(&file, "").unwrap();
    let error = gives_up(&run_to_end(&file.join("below"), &[]));
    assert!(
        error.contains("cannot use the directory") && error.contains("Not a directory"),
        "{error}"
    );
    let error = gives_up(&run_to_end(&file, &[]));
    assert!(error.contains("cannot use the directory"), "{error}");

    let tokens = directory.path().join("tokens.csv");
    let path = tokens.to_str().unwrap();
    let error = gives_up(&run_to_end(&data, &["--token-auth-file", path]));
    assert!(
        error.contains("cannot read --token-auth-file") && error.contains("No such file"),
        "{error}"
    );
    std::fs::write(&tokens, "secret-token,user\n").unwrap();
    let error = gives_up(&run_to_end(&data, &["--token-auth-file", path]));
    assert!(
        error.contains("tokens.csv") && !error.contains("secret-token"),
        "{error}"
    );

    // A store that is damaged is not begun anew.
    let store = data.join("store");
    std::fs::create_dir_all(&store).unwrap();
    let _ = std::fs::remove_dir_all(&store);
    std::fs::write(&store, "").unwrap();
    gives_up(&run_to_end(&data, &[]));

    // What is no command line is explained by the parser, which has a code of its own.
    for wrong in [
        ["--store", "paper"],
        ["--without", "everything"],
        ["--nodes", "-1"],
        ["--listen", "nowhere"],
    ] {
        let output = run_to_end(&data, &wrong);
        assert_eq!(output.status.code(), Some(2), "{wrong:?}");
        assert!(
            String::from_utf8_lossy(&output.stderr).starts_with("error: "),
            "{wrong:?}"
        );
    }
}

// A thread for the connections, which end while the test waits for the process.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn parts_can_be_left_out() {
    let directory = directory();
    let tokens = directory.path().join("tokens.csv");
    std::fs::write(&tokens, "t0ken,jane,1,\"system:masters,others\"\n").unwrap();
    let arguments = [
        "--store",
        "memory",
        "--without",
        "controller-manager",
        "--nodes",
        "0",
    ];
    let arguments = [
        &arguments[..],
        &["--token-auth-file", tokens.to_str().unwrap()],
    ]
    .concat();
    let server = Server::start_in(&directory, &arguments);
    assert!(
        server.said.contains("in memory") && server.said.contains("without  controller-manager"),
        "{}",
        server.said
    );
    assert!(!server.data().join("store").exists());
    let admin = client(&server);
    assert_eq!(
        admin
            .resource(&NODES)
            .list(ListOptions::default())
            .await
            .unwrap()
            .items
            .len(),
        0
    );
    // Nobody makes the service accounts now.
    let accounts = Resource::namespaced("", "v1", "serviceaccounts", "ServiceAccount");
    let accounts = admin
        .resource(&accounts)
        .namespace("default")
        .list(ListOptions::default())
        .await
        .unwrap();
    assert_eq!(accounts.items.len(), 0);

    let jane = Credentials {
        token: Some(Token::Text("t0ken".to_owned())),
        ..Credentials::default()
    };
    let jane = Raw::with_credentials(&server, jane);
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let who = jane
        .post("/apis/authentication.k8s.io/v1/selfsubjectreviews", &review)
        .await
        .json();
    assert_eq!(who["status"]["userInfo"]["username"], "jane");
    assert_eq!(
        who["status"]["userInfo"]["groups"],
        json!(["system:masters", "others", "system:authenticated"])
    );
    admin
        .resource(&MAPS)
        .namespace("default")
        .create(&json!({"metadata": {"name": "gone"}}))
        .await
        .unwrap();
    assert_eq!(server.stop().code(), Some(0));
    let server = Server::start_in(
        &directory,
        &[
            "--store",
            "memory",
            "--without",
            "controller-manager,scheduler,nodes",
        ],
    );
    assert!(
        client(&server)
            .resource(&MAPS)
            .namespace("default")
            .find("gone")
            .await
            .unwrap()
            .is_none()
    );
    drop(server);

    // Without a scheduler, pods wait.
    let server = Server::start(&["--store", "memory", "--without", "scheduler"]);
    let admin = client(&server);
    let pod =
        json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let env = Env::tokio();
    while admin
        .resource(&PODS)
        .namespace("default")
        .create(&pod)
        .await
        .is_err()
    {
        // The service account that a pod needs comes a moment later.
        env.sleep(Duration::from_millis(50)).await;
    }
    env.sleep(Duration::from_millis(500)).await;
    let pod = admin
        .resource(&PODS)
        .namespace("default")
        .get("p")
        .await
        .unwrap();
    let pod = pod.value().unwrap();
    assert_eq!(
        (&pod["status"]["phase"], &pod["spec"]["nodeName"]),
        (&json!("Pending"), &Value::Null)
    );
}

/// How many tasks create at once.
const WRITERS: usize = 16;

fn map(name: &str) -> Value {
    json!({"metadata": {"name": name}, "data": {"name": name, "filling": "x".repeat(100)}})
}

/// `kill -9` in the middle of creates: what was acknowledged is there, what was not is there whole or not at all.
async fn killed(creates: usize) {
    let directory = directory();
    let without = ["--without", "scheduler,controller-manager,nodes"];
    let mut server = Server::start_in(&directory, &without);
    let env = Env::tokio();
    let mut options = RemoteOptions::default();
    options.max_retries = 0;
    let client: Arc<dyn Client> =
        Arc::new(RemoteClient::with_options(&server.config(), options, &env).unwrap());
    let acknowledged = Arc::new(AtomicUsize::new(0));
    let mut writers = Vec::new();
    for writer in 0..WRITERS {
        let (client, acknowledged) = (client.clone(), acknowledged.clone());
        writers.push(async move {
            let mut mine = BTreeMap::new();
            for number in (writer..creates).step_by(WRITERS) {
                let name = format!("m-{number}");
                match client
                    .resource(&MAPS)
                    .namespace("default")
                    .create(&map(&name))
                    .await
                {
                    Ok(object) => {
                        acknowledged.fetch_add(1, Ordering::Relaxed);
                        mine.insert(name, object);
                    }
                    // The server is gone: what it was asked last is unknown.
                    Err(_) => break,
                }
            }
            mine
        });
    }
    // In the middle: after half of them, while the others are under way.
    let kill = async {
        while acknowledged.load(Ordering::Relaxed) < creates / 2 {
            env.sleep(Duration::from_millis(1)).await;
        }
        server.signal("KILL");
    };
    let (created, ()) = futures::future::join(futures::future::join_all(writers), kill).await;
    assert!(!server.wait().success());
    let created: BTreeMap<_, _> = created.into_iter().flatten().collect();
    assert!(
        created.len() >= creates / 2 && created.len() < creates,
        "{} of {creates}",
        created.len()
    );

    let server = Server::start_in(&directory, &without);
    let client = self::client(&server);
    let maps = client.resource(&MAPS).namespace("default");
    let found = maps.list(ListOptions::default()).await.unwrap();
    let found: BTreeMap<_, _> = found
        .items
        .iter()
        .map(|object| (object.name(), object))
        .collect();
    for (name, object) in &created {
        let kept = found
            .get(name.as_str())
            .unwrap_or_else(|| panic!("{name} was acknowledged and is gone"));
        assert_eq!(kept.value().unwrap(), object.value().unwrap());
    }
    let mut revisions = BTreeSet::new();
    let mut more = 0;
    for (name, object) in &found {
        assert!(
            revisions.insert(object.revision()),
            "two objects at one revision"
        );
        if name.starts_with("m-") {
            assert_eq!(
                object.value().unwrap()["data"],
                map(name)["data"],
                "{name} is there by half"
            );
            more += usize::from(!created.contains_key(*name));
        }
    }
    // Each writer has at most one creation whose end it does not know.
    assert!(more <= WRITERS, "{more} objects that nobody was told of");
    let newest = revisions.last().copied().unwrap_or(Revision::ZERO);
    let next = maps.create(&map("after")).await.unwrap();
    assert!(next.revision() > newest);
    println!(
        "{} of {creates} acknowledged, {more} more found, revision {newest} then {}",
        created.len(),
        next.revision()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_by_a_kill() {
    // ORLOP_TEST_CREATES asks for more.
    let creates = std::env::var("ORLOP_TEST_CREATES").map_or(2_000, |count| count.parse().unwrap());
    killed(creates).await;
}
