//! The members of a cluster, none of which there is.

use orlop_core::store::StoreError;

use super::*;
use crate::etcd::client::EtcdTls;

fn endpoints(urls: &[&str], tls: bool) -> Result<Cluster, StoreError> {
    let mut options = EtcdOptions::new(urls.iter().copied());
    if tls {
        options = options.tls(EtcdTls::default());
    }
    Cluster::new(&options, &Arc::new(TaskGroup::new(Env::tokio())))
}

#[tokio::test]
async fn endpoints_are_what_etcd_takes() {
    for good in [
        "http://127.0.0.1:2379",
        "http://[::1]:2379",
        "http://etcd-0.etcd:2379",
        "127.0.0.1:2379",
        "localhost:2379",
        "unix:///run/etcd.sock",
    ] {
        let made = endpoints(&[good], false);
        assert!(made.is_ok(), "{good}: {made:?}");
    }
    assert!(endpoints(&["https://etcd:2379"], true).is_ok());
    for bad in [
        "ftp://etcd:2379",
        "http://",
        "http://a b:1",
        // Nobody says whom to trust.
        "https://etcd:2379",
    ] {
        let made = endpoints(&[bad], false);
        assert!(
            matches!(&made, Err(StoreError::InvalidRequest(why)) if why.contains(bad)),
            "{bad}: {made:?}"
        );
    }
    assert!(matches!(
        endpoints(&[], false),
        Err(StoreError::InvalidRequest(_))
    ));
}

#[tokio::test]
async fn a_member_that_failed_is_left_once() {
    let cluster = endpoints(&["http://a:1", "http://b:1", "http://c:1"], false).unwrap();
    cluster.leave(0);
    // Another request failed with the same member.
    cluster.leave(0);
    assert_eq!(cluster.current(), 1);
    cluster.leave(1);
    cluster.leave(2);
    assert_eq!(cluster.current(), 0);
}

#[tokio::test]
async fn another_cluster_is_noticed() {
    let cluster = endpoints(&["http://a:1", "http://b:1"], false).unwrap();
    let header = |cluster_id, revision| ResponseHeader {
        cluster_id,
        revision,
        ..ResponseHeader::default()
    };
    cluster.learn(0, Some(&header(7, 10))).unwrap();
    cluster.learn(0, Some(&header(0, 11))).unwrap();
    cluster.learn(0, None).unwrap();
    let other = cluster.learn(0, Some(&header(8, 99)));
    assert!(matches!(other, Err(StoreError::Corrupt(_))), "{other:?}");
    assert_eq!((cluster.known(), cluster.current()), (11, 1));
}
