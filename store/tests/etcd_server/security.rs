//! TLS, and who is let in.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::Duration;

use orlop_core::env::Env;
use orlop_wire::listener::ServerTls;
use orlop_wire::pki::{CertificateAuthority, ClientVerifier, SubjectName};

use crate::support::{Served, etcdctl, have};

const DAY: Duration = Duration::from_secs(86_400);

fn write(dir: &Path, name: &str, text: &str) -> String {
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_need_a_certificate_of_the_authority() {
    if !have("clients_need_a_certificate_of_the_authority", &["etcdctl"]) {
        return;
    }
    let env = Env::tokio();
    let now = env.wall();
    let authority = CertificateAuthority::create("etcd-ca", now, DAY).unwrap();
    let stranger = CertificateAuthority::create("other", now, DAY).unwrap();
    let ip = SubjectName::Ip(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let server = authority.issue_server("etcd", [ip], now, DAY).unwrap();
    let clients = ClientVerifier::required_from_pem(authority.certificate_pem()).unwrap();
    let tls = ServerTls::new(&server, Some(&clients), &env).unwrap();
    let served = Served::start_with(Some(tls), |_| ()).await;
    let dir = tempfile::tempdir().unwrap();
    let ca = write(dir.path(), "ca.crt", authority.certificate_pem());
    let identity = |authority: &CertificateAuthority, name: &str| {
        let client = authority
            .issue_client(name, Vec::<String>::new(), now, DAY)
            .unwrap();
        let certificate = write(dir.path(), &format!("{name}.crt"), &client.certificate);
        let key = write(dir.path(), &format!("{name}.key"), &client.key);
        format!("--cacert={ca} --cert={certificate} --key={key}")
    };
    let (good, bad) = (identity(&authority, "good"), identity(&stranger, "bad"));
    let (url, ca) = (served.url.clone(), ca.clone());
    let check = move || {
        let put = |flags: &str| {
            etcdctl(
                &url,
                &format!("put a b --command-timeout=3s --dial-timeout=3s {flags}"),
                "",
            )
        };
        assert_eq!(put(&good), "OK\n");
        let status = etcdctl(&url, &format!("endpoint status {good}"), "");
        assert!(status.contains("3.5.17"), "{status}");
        for flags in [
            format!("--cacert={ca}"),
            bad,
            "--insecure-skip-tls-verify".to_owned(),
        ] {
            let said = put(&flags);
            assert!(said.contains("Error:"), "{flags}: {said}");
        }
    };
    tokio::task::spawn_blocking(check).await.unwrap();
    served.stop().await;
}
