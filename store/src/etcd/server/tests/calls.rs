//! Calls that are not as they should be, and how they are answered.

use std::time::Duration;

use super::*;
use crate::etcd::proto::kv::{PutRequest, PutResponse, RangeRequest, RangeResponse};
use crate::etcd::proto::lease::{LeaseKeepAliveRequest, LeaseKeepAliveResponse};
use crate::etcd::server::error::{GRPC_MESSAGE, GRPC_STATUS};

const PUT: &str = "/etcdserverpb.KV/Put";
const RANGE: &str = "/etcdserverpb.KV/Range";

fn put(key: &'static str, value: &'static str) -> PutRequest {
    PutRequest {
        key: key.into(),
        value: value.into(),
        ..PutRequest::default()
    }
}

/// How a request is refused.
fn refused(world: &World, request: Request<Sent>) -> (i32, String) {
    let server = world.server.clone();
    world.sim.block_on(async move {
        let response = answered(&server, request).await;
        assert_eq!(response.headers()["content-type"], "application/grpc");
        ending(response.headers()).unwrap()
    })
}

#[test]
fn what_was_put_is_read() {
    let world = World::new();
    let server = world.server.clone();
    world.sim.block_on(async move {
        let answer: PutResponse = call(&server, PUT, &put("a", "b")).await.unwrap();
        let header = answer.header.unwrap();
        assert_eq!((header.revision, header.raft_term), (2, 2));
        assert_ne!(header.member_id, 0);
        let read = RangeRequest {
            key: "a".into(),
            ..RangeRequest::default()
        };
        let answer: RangeResponse = call(&server, RANGE, &read).await.unwrap();
        assert_eq!(answer.kvs[0].value, "b");
        let empty: Result<PutResponse, _> = call(&server, PUT, &put("", "b")).await;
        assert_eq!(
            empty.unwrap_err(),
            (3, "etcdserver: key is not provided".to_owned())
        );
    });
}

#[test]
fn what_nobody_knows_is_unimplemented() {
    let world = World::new();
    let code = |path: &str| refused(&world, request(path, once(Bytes::new())));
    assert_eq!(
        code("/etcdserverpb.KV/Fetch"),
        (
            12,
            "unknown method Fetch for service etcdserverpb.KV".to_owned()
        )
    );
    assert_eq!(
        code("/v3lockpb.Lock/Lock"),
        (12, "unknown service v3lockpb.Lock".to_owned())
    );
    let users = frame::encoded(&put("", "")).unwrap();
    let (code, text) = refused(&world, request("/etcdserverpb.Auth/UserAdd", once(users)));
    assert_eq!(code, 12);
    assert!(text.contains("no users"), "{text}");
}

#[test]
fn compressed_messages_are_refused() {
    let world = World::new();
    let mut named = request(PUT, once(frame::encoded(&put("a", "b")).unwrap()));
    let gzip = http::HeaderValue::from_static("gzip");
    named.headers_mut().insert("grpc-encoding", gzip);
    let server = world.server.clone();
    world.sim.block_on(async move {
        let response = answered(&server, named).await;
        assert_eq!(response.headers()[GRPC_STATUS], "12");
        assert_eq!(response.headers()["grpc-accept-encoding"], "identity");
        assert!(response.headers().contains_key(GRPC_MESSAGE));
    });
    let mut marked = BytesMut::from(&frame::encoded(&put("a", "b")).unwrap()[..]);
    marked[0] = 1;
    let (code, _) = refused(&world, request(PUT, once(marked.freeze())));
    assert_eq!(code, 12);
}

#[test]
fn broken_messages_are_refused() {
    let world = World::new();
    let whole = frame::encoded(&put("a", "b")).unwrap();
    let code = |bytes: Bytes| refused(&world, request(PUT, once(bytes))).0;
    assert_eq!(code(Bytes::new()), 13);
    assert_eq!(code(whole.slice(..3)), 13);
    assert_eq!(code(whole.slice(..whole.len() - 1)), 13);
    assert_eq!(code([&whole[..], &whole[..]].concat().into()), 13);
    assert_eq!(code(Bytes::from_static(b"\0\0\0\0\x02\x0a\xff")), 13);
    // Longer than anything may be, whatever comes then.
    assert_eq!(code(Bytes::from_static(b"\0\xff\0\0\0")), 8);
}

#[test]
fn a_deadline_is_kept() {
    let world = World::new();
    let slow = futures::stream::pending::<Result<Frame<Bytes>, std::convert::Infallible>>();
    let mut late = request(PUT, Box::pin(StreamBody::new(slow)));
    let limit = http::HeaderValue::from_static("1500m");
    late.headers_mut().insert("grpc-timeout", limit);
    let (server, env) = (world.server.clone(), world.env.clone());
    world.sim.block_on(async move {
        let start = env.now();
        let response = answered(&server, late).await;
        let (code, text) = ending(response.headers()).unwrap();
        assert_eq!((code, text.as_str()), (4, "context deadline exceeded"));
        assert_eq!(env.now().since(start), Duration::from_millis(1500));
    });
    let mut odd = request(PUT, once(Bytes::new()));
    let limit = http::HeaderValue::from_static("soon");
    odd.headers_mut().insert("grpc-timeout", limit);
    assert_eq!(refused(&world, odd).0, 13);
}

#[test]
fn leases_that_are_not_there_have_no_time_left() {
    let world = World::new();
    let (server, store) = (world.server.clone(), world.store.clone());
    world.sim.block_on(async move {
        let path = "/etcdserverpb.Lease/LeaseKeepAlive";
        let mut stream = Duplex::open(&server, path).await;
        let id = store.grant_lease(None, 30).await.unwrap().0;
        for (id, ttl) in [(id, 30), (77, 0), (id, 30)] {
            stream.send(&LeaseKeepAliveRequest { id });
            let answer: LeaseKeepAliveResponse = stream.next().await.unwrap();
            assert_eq!((answer.id, answer.ttl), (id, ttl));
            assert_eq!(answer.header.unwrap().revision, 1);
        }
        server.close();
        let ended = stream.next::<LeaseKeepAliveResponse>().await;
        assert_eq!(ended.unwrap_err().0, 14);
    });
}

#[test]
fn pages_are_beside_the_calls() {
    let world = World::new();
    let server = world.server.clone();
    world.sim.block_on(async move {
        let _: PutResponse = call(&server, PUT, &put("a", "b")).await.unwrap();
        let get = async |path: &str| {
            let request = Request::get(path).body(once(Bytes::new())).unwrap();
            let response = answered(&server, request).await;
            let status = response.status().as_u16();
            let body = response.into_body().collect().await.unwrap().to_bytes();
            (status, String::from_utf8(body.to_vec()).unwrap())
        };
        assert_eq!(
            get("/health").await,
            (200, "{\"health\":\"true\"}".to_owned())
        );
        let (_, version) = get("/version").await;
        assert!(version.contains("\"etcdserver\":\"3.5."), "{version}");
        let (_, metrics) = get("/metrics").await;
        for line in [
            "etcd_debugging_mvcc_current_revision 2",
            "etcd_debugging_mvcc_keys_total 1",
            "grpc_server_handled_total{grpc_code=\"OK\",grpc_method=\"Put\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"} 1",
        ] {
            assert!(metrics.lines().any(|found| found == line), "{line}: {metrics}");
        }
        assert_eq!(get("/v2/keys").await.0, 404);
        let post = Request::post("/health").body(once(Bytes::new())).unwrap();
        assert_eq!(answered(&server, post).await.status(), 405);
    });
}
