//! The server, called in the same process: on virtual time, and with what no client of etcd does.

mod calls;
mod watches;

use std::pin::Pin;
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use futures::StreamExt;
use futures::channel::mpsc;
use http::{HeaderMap, Request, Response};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, StreamBody};
use orlop_core::env::{Env, SimEnv};
use orlop_core::store::Store;
use prost::Message;
use tower_service::Service;

use super::{EtcdBody, EtcdServer, EtcdServerOptions, frame};
use crate::MemoryStore;

type Sent = Pin<Box<dyn Body<Data = Bytes, Error = std::convert::Infallible> + Send>>;

/// A server on a store in memory, in a world of its own.
struct World {
    sim: SimEnv,
    env: Env,
    store: Arc<dyn Store>,
    server: EtcdServer,
}

impl World {
    fn new() -> Self {
        Self::with(|env| Arc::new(MemoryStore::new(env)), |_| ())
    }

    fn with(
        store: impl FnOnce(Env) -> Arc<dyn Store>,
        change: impl FnOnce(&mut EtcdServerOptions),
    ) -> Self {
        let sim = SimEnv::new(1);
        let env = sim.env();
        let store = store(env.clone());
        let mut options = EtcdServerOptions::new("test");
        change(&mut options);
        let server = EtcdServer::new(store.clone(), options, env.clone());
        Self {
            sim,
            env,
            store,
            server,
        }
    }
}

fn request(path: &str, body: Sent) -> Request<Sent> {
    Request::post(path)
        .header("content-type", "application/grpc")
        .body(body)
        .unwrap()
}

async fn answered(server: &EtcdServer, request: Request<Sent>) -> Response<EtcdBody> {
    server.clone().call(request).await.unwrap()
}

fn once(bytes: Bytes) -> Sent {
    Box::pin(http_body_util::Full::new(bytes))
}

/// The end of an answer: the code and the message.
fn ending(headers: &HeaderMap) -> Option<(i32, String)> {
    let code = headers
        .get("grpc-status")?
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    let message = headers
        .get("grpc-message")
        .map(|text| text.to_str().unwrap().to_owned());
    Some((code, message.unwrap_or_default()))
}

/// Calls a method that has one message there and one back.
async fn call<I: Message, O: Message + Default>(
    server: &EtcdServer,
    path: &str,
    message: &I,
) -> Result<O, (i32, String)> {
    let body = once(frame::encoded(message).unwrap());
    let response = answered(server, request(path, body)).await;
    if let Some(error) = ending(response.headers()) {
        return Err(error);
    }
    let collected = response.into_body().collect().await.unwrap();
    let (code, text) = ending(collected.trailers().unwrap()).unwrap();
    if code != 0 {
        return Err((code, text));
    }
    let mut bytes = collected.to_bytes();
    bytes.advance(5);
    Ok(O::decode(bytes).unwrap())
}

/// A stream of messages both ways.
struct Duplex {
    send: mpsc::UnboundedSender<Bytes>,
    body: EtcdBody,
    read: BytesMut,
}

impl Duplex {
    async fn open(server: &EtcdServer, path: &str) -> Self {
        let (send, sent) = mpsc::unbounded::<Bytes>();
        let body = StreamBody::new(sent.map(|bytes| Ok(Frame::data(bytes))));
        let response = answered(server, request(path, Box::pin(body))).await;
        Self {
            send,
            body: response.into_body(),
            read: BytesMut::new(),
        }
    }

    fn send<M: Message>(&self, message: &M) {
        let message = frame::encoded(message).unwrap();
        self.send.unbounded_send(message).unwrap();
    }

    /// The next message, or how the stream ended.
    async fn next<M: Message + Default>(&mut self) -> Result<M, (i32, String)> {
        loop {
            if self.read.len() >= 5 {
                let length = u32::from_be_bytes(self.read[1..5].try_into().unwrap()) as usize;
                if self.read.len() >= 5 + length {
                    self.read.advance(5);
                    return Ok(M::decode(self.read.split_to(length)).unwrap());
                }
            }
            let frame = self.body.frame().await.unwrap().unwrap();
            match frame.into_data() {
                Ok(data) => self.read.extend_from_slice(&data),
                Err(frame) => return Err(ending(frame.trailers_ref().unwrap()).unwrap()),
            }
        }
    }
}
