//! The members of a cluster: one connection each, one of them in use at a time, and what becomes of a request when that one fails.

mod answer;
mod connection;
mod login;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::BoxStream;
use http::uri::PathAndQuery;
use orlop_core::env::{CancelToken, Env, TaskGroup};
use orlop_core::store::StoreError;
use tonic::client::Grpc;
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};
use tonic_prost::ProstCodec;

pub(super) use self::answer::Answer;
use self::connection::{Connections, channel};
use self::login::{Logins, Token};
use super::EtcdOptions;
use super::refusal::{Refusal, Verdict, verdict};
use crate::etcd::proto::kv::ResponseHeader;

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
    logins: Logins,
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
            logins: Logins::new(options.user.clone()),
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
                self.logins.token()
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
                    Verdict::LogIn if self.logins.nobody() || logins == LOGINS || !logged_in => {
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
        let token = self.logins.token();
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
