//! TLS and users.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::Duration;

use orlop_core::env::{Env, TaskGroup};
use orlop_core::revision::Revision;
use orlop_core::store::{KeyRange, RangeRequest, Store, StoreError};
use orlop_store::{EtcdOptions, EtcdStore, EtcdTls};
use orlop_wire::pki::{CertificateAuthority, KeyAndCertificate, SubjectName};

use crate::support::{Cluster, Settings, Watch, get, put, relay_unix};

const DAY: Duration = Duration::from_secs(86_400);

struct Pki {
    authority: CertificateAuthority,
    server: KeyAndCertificate,
    client: KeyAndCertificate,
}

fn pki() -> Pki {
    let now = Env::tokio().wall();
    let authority = CertificateAuthority::create("etcd-ca", now, DAY).unwrap();
    let ip = SubjectName::Ip(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let dns = SubjectName::Dns("localhost".to_owned());
    let server = authority.issue_server("etcd", [ip, dns], now, DAY).unwrap();
    let client = authority
        .issue_client("orlop", Vec::<String>::new(), now, DAY)
        .unwrap();
    Pki {
        authority,
        server,
        client,
    }
}

fn write(dir: &Path, name: &str, text: &str) -> String {
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

#[tokio::test]
async fn tls_with_client_certificates() {
    let (pki, dir) = (pki(), tempfile::tempdir().unwrap());
    let at = |name, text| write(dir.path(), name, text);
    let settings = Settings {
        args: vec![
            format!("--cert-file={}", at("server.crt", &pki.server.certificate)),
            format!("--key-file={}", at("server.key", &pki.server.key)),
            format!(
                "--trusted-ca-file={}",
                at("ca.crt", pki.authority.certificate_pem())
            ),
            "--client-cert-auth".to_owned(),
        ],
        https: true,
    };
    let Some(cluster) = Cluster::start_with("tls_with_client_certificates", 1, settings) else {
        return;
    };
    let tls = EtcdTls {
        ca_pem: pki.authority.certificate_pem().to_owned(),
        certificate_pem: pki.client.certificate.clone(),
        key_pem: pki.client.key.clone(),
    };
    let store = cluster
        .connect_with(cluster.options().tls(tls.clone()))
        .await;
    let first = put(&store, "/a", "1").await.unwrap();
    let mut watch = Watch::open(&store, KeyRange::prefix("/"), first).await;
    let last = put(&store, "/a", "2").await.unwrap();
    assert_eq!(watch.until(last).await.len(), 2);
    store.close().await;
    // By its name, too.
    let named: Vec<_> = cluster
        .endpoints()
        .iter()
        .map(|url| url.replace("127.0.0.1", "localhost"))
        .collect();
    let store = cluster
        .connect_with(EtcdOptions::new(named).tls(tls.clone()))
        .await;
    assert_eq!(get(&store, "/a").await.unwrap().as_deref(), Some("2"));
    store.close().await;

    let stranger = CertificateAuthority::create("other", Env::tokio().wall(), DAY).unwrap();
    let refused = [
        EtcdTls {
            ca_pem: stranger.certificate_pem().to_owned(),
            ..tls.clone()
        },
        EtcdTls {
            certificate_pem: String::new(),
            key_pem: String::new(),
            ..tls
        },
    ];
    for tls in refused {
        let options = cluster
            .options()
            .tls(tls)
            .request_timeout(Duration::from_secs(1));
        let refused = EtcdStore::connect(options, Env::tokio()).await;
        let error = refused.map(|_| ()).unwrap_err();
        assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
    }
    let bare = EtcdStore::connect(cluster.options(), Env::tokio()).await;
    let error = bare.map(|_| ()).unwrap_err();
    assert!(matches!(error, StoreError::InvalidRequest(_)), "{error}");
}

/// Makes the users `root` and `orlop`, who may see what is below `/orlop/`, and turns authentication on.
fn turn_on(cluster: &Cluster) {
    for line in [
        "role add root",
        "user add root:toor",
        "user grant-role root root",
        "role add orlop",
        "role grant-permission orlop readwrite --prefix=true /orlop/",
        "user add orlop:deck",
        "user grant-role orlop orlop",
        "auth enable",
    ] {
        let args: Vec<_> = line.split(' ').collect();
        if let Err(error) = cluster.etcdctl(0, &args) {
            assert!(error.contains("already exists"), "{line}: {error}");
        }
    }
}

#[tokio::test]
async fn users() {
    let settings = Settings::args(["--auth-token-ttl=1"]);
    let Some(mut cluster) = Cluster::start_with("users", 1, settings) else {
        return;
    };
    let env = Env::tokio();
    // A login is no offence where nobody asks for one.
    let store = cluster
        .connect_with(cluster.options().user("root", "toor"))
        .await;
    put(&store, "/a", "1").await.unwrap();
    turn_on(&cluster);
    // It logs in when it is asked to.
    assert_eq!(get(&store, "/a").await.unwrap().as_deref(), Some("1"));
    let first = put(&store, "/a", "2").await.unwrap();
    let mut watch = Watch::open(&store, KeyRange::prefix("/"), first).await;
    // The token runs out.
    env.sleep(Duration::from_millis(2500)).await;
    let last = put(&store, "/a", "3").await.unwrap();
    watch.until(last).await;
    env.sleep(Duration::from_millis(2500)).await;
    let lease = store.grant_lease(None, 60).await.unwrap();
    store.renew_lease(lease).await.unwrap();
    // A member that starts again knows no token.
    cluster.kill(0);
    cluster.restart(0);
    let last = crate::support::put_until_done(&store, "/a", "4").await;
    watch.until(last).await;
    let second = cluster
        .connect_with(cluster.options().user("root", "toor"))
        .await;
    assert_eq!(get(&second, "/a").await.unwrap().as_deref(), Some("4"));
    second.close().await;
    store.close().await;

    let refused = |options: EtcdOptions, wanted: &'static str| async move {
        let connected = EtcdStore::connect(options, Env::tokio()).await;
        let error = connected.map(|_| ()).unwrap_err();
        assert!(
            matches!(&error, StoreError::InvalidRequest(why) if why.contains(wanted)),
            "{error}"
        );
    };
    refused(
        cluster.options().user("root", "wrong"),
        "authentication failed",
    )
    .await;
    refused(cluster.options(), "user name is empty").await;
    refused(cluster.options().user("orlop", "deck"), "permission denied").await;
    // This etcd cannot tell how far a watch of a part has come.
    let version = cluster.etcdctl(0, &["version"]).unwrap_or_default();
    let narrow = cluster.options().user("orlop", "deck").prefix("/orlop/");
    if version.contains("3.4.2")
        && !["3.4.25", "3.4.26", "3.4.27", "3.4.28", "3.4.29"]
            .iter()
            .any(|v| version.contains(v))
    {
        refused(narrow, "how far a watch").await;
    } else {
        let store = cluster.connect_with(narrow).await;
        let mut watch = Watch::open(&store, KeyRange::prefix("/orlop/"), Revision::ZERO).await;
        let last = put(&store, "/orlop/a", "1").await.unwrap();
        watch.until(last).await;
        let error = store
            .range(RangeRequest::new(KeyRange::key("/a")))
            .await
            .unwrap_err();
        assert!(matches!(error, StoreError::InvalidRequest(_)), "{error}");
        store.close().await;
    }
}

#[tokio::test]
async fn a_unix_socket() {
    let Some(cluster) = Cluster::start("a_unix_socket", 1) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("etcd.sock");
    let tasks = TaskGroup::new(Env::tokio());
    relay_unix(&socket, cluster.address(0), &tasks);
    let url = format!("unix://{}", socket.display());
    let store = cluster.connect_with(EtcdOptions::new([url])).await;
    put(&store, "/a", "1").await.unwrap();
    assert_eq!(get(&store, "/a").await.unwrap().as_deref(), Some("1"));
    store.close().await;
    tasks.shutdown().await;
}
