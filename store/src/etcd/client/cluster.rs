//! The members of a cluster: one connection each, one of them in use at a time, and what becomes of a request when that one fails.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use http::uri::PathAndQuery;
use orlop_core::env::{CancelToken, Env, TaskGroup};
use orlop_core::store::StoreError;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tonic::client::Grpc;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Request, Status, Streaming};
use tonic_prost::ProstCodec;

use super::EtcdOptions;
use super::refusal::{Refusal, Verdict, verdict};
use crate::etcd::proto::auth::{AuthenticateRequest, AuthenticateResponse};
use crate::etcd::proto::kv::{
    CompactionResponse, DeleteRangeResponse, PutResponse, RangeResponse, ResponseHeader,
    TxnResponse,
};
use crate::etcd::proto::lease::{
    LeaseGrantResponse, LeaseKeepAliveResponse, LeaseLeasesResponse, LeaseRevokeResponse,
    LeaseTimeToLiveResponse,
};
use crate::etcd::proto::maintenance::StatusResponse;

/// The largest message that is taken: gRPC's own limit. What is asked for is far smaller, but one value has no smaller limit than
/// that of the server.
const MAX_MESSAGE: usize = i32::MAX as usize;

/// How often a request logs in again, before it is taken that the token is not what is wrong.
const LOGINS: usize = 3;

/// The wait after every member has failed once; doubled every time until the longest.
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// The least time that one member has for the answer to a read when there are others to ask.
const LEAST_ATTEMPT: Duration = Duration::from_secs(1);

/// What a request does to the store, which decides whether it may be sent twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Nothing, or the same when done twice.
    Read,
    Write,
}

/// An answer. Nearly all carry the revision of the store.
pub(super) trait Answer: prost::Message + Default + 'static {
    fn header(&self) -> Option<&ResponseHeader>;
}

macro_rules! answers {
    ($($answer:ty),+ $(,)?) => {
        $(impl Answer for $answer {
            fn header(&self) -> Option<&ResponseHeader> {
                self.header.as_ref()
            }
        })+
    };
}

answers!(
    RangeResponse,
    PutResponse,
    DeleteRangeResponse,
    TxnResponse,
    CompactionResponse,
    LeaseGrantResponse,
    LeaseKeepAliveResponse,
    LeaseLeasesResponse,
    LeaseRevokeResponse,
    LeaseTimeToLiveResponse,
    AuthenticateResponse,
    StatusResponse,
);

/// What a login gave, and how many came before it.
#[derive(Clone, Default)]
struct Token {
    login: u64,
    value: Option<MetadataValue<Ascii>>,
}

pub(super) struct Cluster {
    env: Env,
    closed: CancelToken,
    /// Why nothing can be had from it any more.
    fault: OnceLock<String>,
    /// Its number, which every answer carries; zero until the first.
    id: AtomicU64,
    members: Vec<Member>,
    /// The member in use.
    current: AtomicUsize,
    user: Option<(String, String)>,
    token: Mutex<Token>,
    /// One login at a time: etcd makes a password check expensive on purpose.
    login: Semaphore,
    timeout: Duration,
    /// The newest revision that any answer told of.
    known: AtomicU64,
}

struct Member {
    url: String,
    channel: Channel,
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let urls: Vec<_> = self.members.iter().map(|member| &member.url).collect();
        f.debug_struct("Cluster")
            .field("members", &urls)
            .field("current", &self.current)
            .finish_non_exhaustive()
    }
}

/// Gives the tasks of connections an owner: they end when the store is closed.
#[derive(Clone)]
struct Connections(Arc<TaskGroup>);

impl hyper::rt::Executor<Pin<Box<dyn Future<Output = ()> + Send>>> for Connections {
    fn execute(&self, task: Pin<Box<dyn Future<Output = ()> + Send>>) {
        self.0.spawn_until_cancelled("etcd-connection", task);
    }
}

fn invalid(url: &str, why: impl fmt::Display) -> StoreError {
    StoreError::InvalidRequest(format!("endpoint {url:?}: {why}"))
}

fn channel(
    url: &str,
    options: &EtcdOptions,
    connections: &Connections,
) -> Result<Channel, StoreError> {
    let full = if url.contains("://") {
        url.to_owned()
    } else {
        format!("http://{url}")
    };
    let scheme = full.split("://").next().unwrap_or_default();
    if !matches!(scheme, "http" | "https" | "unix") {
        return Err(invalid(url, "its scheme is none of http, https and unix"));
    }
    let mut endpoint = Endpoint::from_shared(full.clone()).map_err(|error| invalid(url, error))?;
    if scheme != "unix" && endpoint.uri().host().is_none_or(str::is_empty) {
        return Err(invalid(url, "it names no host"));
    }
    endpoint = endpoint
        .user_agent(concat!("orlop/", env!("CARGO_PKG_VERSION")))
        .map_err(|error| invalid(url, error))?
        .connect_timeout(options.dial_timeout)
        .executor(connections.clone());
    if let Some((interval, timeout)) = options.keep_alive {
        endpoint = endpoint
            .http2_keep_alive_interval(interval)
            .keep_alive_timeout(timeout)
            // etcd disconnects who probes a connection that carries no request.
            .keep_alive_while_idle(false);
    }
    if scheme == "https" {
        let Some(tls) = &options.tls else {
            return Err(invalid(url, "https needs an authority to trust"));
        };
        let mut config = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(&tls.ca_pem))
            .timeout(options.dial_timeout);
        if !tls.certificate_pem.is_empty() {
            config = config.identity(Identity::from_pem(&tls.certificate_pem, &tls.key_pem));
        }
        endpoint = endpoint
            .tls_config(config)
            .map_err(|error| invalid(url, format_args!("{:?}", error.to_string())))?;
    }
    Ok(endpoint.connect_lazy())
}

impl Cluster {
    /// The members of the options. Nothing is connected yet. Connections are tasks of the group, and end with it.
    pub(super) fn new(options: &EtcdOptions, tasks: &Arc<TaskGroup>) -> Result<Self, StoreError> {
        if options.endpoints.is_empty() {
            return Err(StoreError::InvalidRequest(
                "etcd needs at least one endpoint".to_owned(),
            ));
        }
        let connections = Connections(tasks.clone());
        let members = options
            .endpoints
            .iter()
            .map(|url| {
                Ok(Member {
                    url: url.clone(),
                    channel: channel(url, options, &connections)?,
                })
            })
            .collect::<Result<Vec<_>, StoreError>>()?;
        Ok(Self {
            env: tasks.env().clone(),
            closed: tasks.token(),
            fault: OnceLock::new(),
            id: AtomicU64::new(0),
            members,
            current: AtomicUsize::new(0),
            user: options.user.clone(),
            token: Mutex::default(),
            login: Semaphore::new(1),
            timeout: options.request_timeout,
            known: AtomicU64::new(0),
        })
    }

    pub(super) fn env(&self) -> &Env {
        &self.env
    }

    /// How long a request may take.
    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// The newest revision that any answer told of.
    pub(super) fn known(&self) -> u64 {
        self.known.load(Ordering::Acquire)
    }

    /// Takes note of what an answer says of the cluster.
    ///
    /// # Errors
    /// When it is another cluster than that of the answers before.
    pub(super) fn learn(
        &self,
        member: usize,
        header: Option<&ResponseHeader>,
    ) -> Result<(), StoreError> {
        let Some(header) = header else {
            return Ok(());
        };
        if header.cluster_id != 0 {
            let id =
                self.id
                    .compare_exchange(0, header.cluster_id, Ordering::AcqRel, Ordering::Acquire);
            if id.is_err_and(|id| id != header.cluster_id) {
                self.leave(member);
                return Err(StoreError::Corrupt(format!(
                    "{} answers for another cluster of etcd than the one connected to",
                    self.url(member)
                )));
            }
        }
        let revision = u64::try_from(header.revision).unwrap_or(0);
        self.known.fetch_max(revision, Ordering::AcqRel);
        Ok(())
    }

    /// Lets every later request fail.
    pub(super) fn fail(&self, why: String) {
        tracing::error!(%why, "the store in etcd cannot go on");
        let _ = self.fault.set(why);
    }

    /// Whether there is any use in asking.
    fn usable(&self) -> Result<(), StoreError> {
        if let Some(why) = self.fault.get() {
            return Err(StoreError::Unavailable(why.clone()));
        }
        if self.closed.is_cancelled() {
            return Err(StoreError::Unavailable("the store is closed".to_owned()));
        }
        Ok(())
    }

    /// The member in use.
    pub(super) fn current(&self) -> usize {
        self.current.load(Ordering::Acquire)
    }

    /// The member to try after one that failed.
    pub(super) fn next(&self, failed: usize) -> usize {
        (failed + 1) % self.members.len()
    }

    pub(super) fn url(&self, member: usize) -> &str {
        self.members
            .get(member)
            .map_or("", |member| member.url.as_str())
    }

    /// Leaves a member that failed, unless somebody has left it already.
    pub(super) fn leave(&self, failed: usize) {
        let _ = self.current.compare_exchange(
            failed,
            self.next(failed),
            Ordering::AcqRel,
            Ordering::Relaxed,
        );
    }

    fn grpc(&self, member: usize) -> Result<Grpc<Channel>, Status> {
        let member = self
            .members
            .get(member)
            .ok_or_else(|| Status::internal("no such member"))?;
        Ok(Grpc::new(member.channel.clone()).max_decoding_message_size(MAX_MESSAGE))
    }

    /// A request with what every request to etcd carries. A member that knows of no leader is to say so, instead of waiting for one.
    fn request<M>(&self, message: M, token: &Token) -> Request<M> {
        let mut request = Request::new(message);
        request
            .metadata_mut()
            .insert("hasleader", MetadataValue::from_static("true"));
        if let Some(value) = &token.value {
            request.metadata_mut().insert("token", value.clone());
        }
        request
    }

    async fn once<Q, R>(
        &self,
        member: usize,
        path: &'static str,
        message: Q,
        token: &Token,
        streaming: bool,
    ) -> Result<R, Status>
    where
        Q: prost::Message + Clone + Default + 'static,
        R: Answer,
    {
        let mut grpc = self.grpc(member)?;
        let path = PathAndQuery::from_static(path);
        let codec = ProstCodec::<Q, R>::default();
        grpc.ready()
            .await
            .map_err(|error| Status::unavailable(error.to_string()))?;
        if !streaming {
            let response = grpc
                .unary(self.request(message, token), path, codec)
                .await?;
            return Ok(response.into_inner());
        }
        let messages = futures::stream::iter([message]);
        let response = grpc
            .streaming(self.request(messages, token), path, codec)
            .await?;
        response
            .into_inner()
            .message()
            .await?
            .ok_or_else(|| Status::unavailable("the stream ended without an answer"))
    }

    /// Asks for something, of one member after the other until one answers or the time is over.
    pub(super) async fn call<Q, R>(
        &self,
        path: &'static str,
        kind: Kind,
        message: Q,
    ) -> Result<R, Refusal>
    where
        Q: prost::Message + Clone + Default + 'static,
        R: Answer,
    {
        self.call_within(self.timeout, path, kind, message).await
    }

    /// The same, within a time.
    pub(super) async fn call_within<Q, R>(
        &self,
        limit: Duration,
        path: &'static str,
        kind: Kind,
        message: Q,
    ) -> Result<R, Refusal>
    where
        Q: prost::Message + Clone + Default + 'static,
        R: Answer,
    {
        self.attempts(limit, path, kind, message, false, true).await
    }

    /// Asks for something by a stream that takes one message and gives one.
    pub(super) async fn call_streaming<Q, R>(
        &self,
        path: &'static str,
        kind: Kind,
        message: Q,
    ) -> Result<R, Refusal>
    where
        Q: prost::Message + Clone + Default + 'static,
        R: Answer,
    {
        self.attempts(self.timeout, path, kind, message, true, true)
            .await
    }

    async fn attempts<Q, R>(
        &self,
        limit: Duration,
        path: &'static str,
        kind: Kind,
        message: Q,
        streaming: bool,
        logged_in: bool,
    ) -> Result<R, Refusal>
    where
        Q: prost::Message + Clone + Default + 'static,
        R: Answer,
    {
        let deadline = self.env.now() + limit;
        // A read that one member leaves unanswered is asked of the next while there is time. A write is not: it may be on its way.
        let share = match (kind, self.members.len()) {
            (Kind::Write, _) | (_, 1) => limit,
            (Kind::Read, members) => (limit / members.min(8) as u32).max(LEAST_ATTEMPT),
        };
        let mut failed = 0;
        let mut logins = 0;
        let mut wait = FIRST_WAIT;
        loop {
            self.usable().map_err(Refusal::Other)?;
            let member = self.current();
            let token = if logged_in {
                self.token.lock().clone()
            } else {
                Token::default()
            };
            let left = deadline.since(self.env.now());
            let attempt = self.once(member, path, message.clone(), &token, streaming);
            let (why, done) = match self.env.timeout(share.min(left), attempt).await {
                Ok(Ok(answer)) => {
                    let answer: R = answer;
                    self.learn(member, answer.header())
                        .map_err(Refusal::Other)?;
                    return Ok(answer);
                }
                Ok(Err(status)) => match verdict(&status) {
                    Verdict::Refused(refusal) => return Err(refusal),
                    Verdict::LogIn if self.user.is_none() || logins == LOGINS || !logged_in => {
                        return Err(Refusal::Other(StoreError::InvalidRequest(
                            status.message().to_owned(),
                        )));
                    }
                    Verdict::LogIn => {
                        logins += 1;
                        self.log_in(token.login, left).await?;
                        continue;
                    }
                    Verdict::NotDone(why) => (why, false),
                    Verdict::Unknown(why) => (why, true),
                },
                Err(timed_out) => (timed_out.to_string(), true),
            };
            let why = format!("{}: {why}", self.url(member));
            tracing::debug!(%why, path, "a member of etcd failed");
            self.leave(member);
            if done && kind == Kind::Write {
                return Err(Refusal::Other(StoreError::OutcomeUnknown(why)));
            }
            failed += 1;
            let mut left = deadline.since(self.env.now());
            if failed % self.members.len() == 0 && !left.is_zero() {
                self.env.sleep(self.env.jitter(wait, 0.5).min(left)).await;
                wait = (wait * 2).min(LONGEST_WAIT);
                left = deadline.since(self.env.now());
            }
            if left.is_zero() {
                return Err(Refusal::Other(StoreError::Unavailable(why)));
            }
        }
    }

    /// Logs in, unless somebody did since the login that gave the token which failed.
    pub(super) fn log_in(
        &self,
        failed: u64,
        limit: Duration,
    ) -> BoxFuture<'_, Result<(), Refusal>> {
        Box::pin(async move {
            let Some((name, password)) = &self.user else {
                return Ok(());
            };
            let _permit = self.login.acquire().await;
            if self.token.lock().login != failed {
                return Ok(());
            }
            let request = AuthenticateRequest {
                name: name.clone(),
                password: password.clone(),
            };
            let path = "/etcdserverpb.Auth/Authenticate";
            let answer: Result<AuthenticateResponse, Refusal> = self
                .attempts(limit, path, Kind::Read, request, false, false)
                .await;
            let value = match answer {
                Ok(answer) => {
                    let mut value =
                        MetadataValue::try_from(answer.token.as_str()).map_err(|_| {
                            Refusal::Other(StoreError::Unavailable(
                                "etcd gave a token that cannot be sent".to_owned(),
                            ))
                        })?;
                    value.set_sensitive(true);
                    Some(value)
                }
                // Whoever asks nobody's name gets by without one.
                Err(Refusal::Other(StoreError::InvalidRequest(why)))
                    if why.contains("authentication is not enabled") =>
                {
                    None
                }
                Err(refusal) => return Err(refusal),
            };
            let mut token = self.token.lock();
            token.login += 1;
            token.value = value;
            Ok(())
        })
    }

    /// The login that a stream opened now is based on.
    pub(super) fn login(&self) -> u64 {
        self.token.lock().login
    }

    /// Opens a stream to a member. It is open when the member has said so, which etcd does with its first message.
    pub(super) async fn open<Q, R>(
        &self,
        member: usize,
        path: &'static str,
        messages: BoxStream<'static, Q>,
    ) -> Result<Streaming<R>, Status>
    where
        Q: prost::Message + 'static,
        R: prost::Message + Default + 'static,
    {
        let token = self.token.lock().clone();
        let opening = async {
            let mut grpc = self.grpc(member)?;
            grpc.ready()
                .await
                .map_err(|error| Status::unavailable(error.to_string()))?;
            let request = self.request(messages.boxed(), &token);
            let path = PathAndQuery::from_static(path);
            let codec = ProstCodec::<Q, R>::default();
            Ok(grpc.streaming(request, path, codec).await?.into_inner())
        };
        match self.env.timeout(self.timeout, opening).await {
            Ok(opened) => opened,
            Err(timed_out) => Err(Status::unavailable(timed_out.to_string())),
        }
    }
}

/// What several tasks of a store share.
pub(super) type Shared = Arc<Cluster>;

#[cfg(test)]
mod tests {
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
}
