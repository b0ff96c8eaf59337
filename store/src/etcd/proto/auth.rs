//! Users, as far as a client needs them.

use super::kv::ResponseHeader;

/// `etcdserverpb.AuthenticateRequest`.
#[derive(Clone, PartialEq, ::prost::Message)]
pub(crate) struct AuthenticateRequest {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(string, tag = "2")]
    pub(crate) password: String,
}

/// `etcdserverpb.AuthenticateResponse`.
#[derive(Clone, PartialEq, ::prost::Message)]
pub(crate) struct AuthenticateResponse {
    #[prost(message, optional, tag = "1")]
    pub(crate) header: Option<ResponseHeader>,
    #[prost(string, tag = "2")]
    pub(crate) token: String,
}

/// `etcdserverpb.AuthStatusRequest`.
#[derive(Clone, PartialEq, ::prost::Message)]
pub(crate) struct AuthStatusRequest {}

/// `etcdserverpb.AuthStatusResponse`.
#[derive(Clone, PartialEq, ::prost::Message)]
pub(crate) struct AuthStatusResponse {
    #[prost(message, optional, tag = "1")]
    pub(crate) header: Option<ResponseHeader>,
    #[prost(bool, tag = "2")]
    pub(crate) enabled: bool,
    #[prost(uint64, tag = "3")]
    pub(crate) auth_revision: u64,
}

/// `etcdserverpb.AuthEnableRequest`.
#[derive(Clone, PartialEq, ::prost::Message)]
pub(crate) struct AuthEnableRequest {}

/// `etcdserverpb.AuthEnableResponse`.
#[derive(Clone, PartialEq, ::prost::Message)]
pub(crate) struct AuthEnableResponse {
    #[prost(message, optional, tag = "1")]
    pub(crate) header: Option<ResponseHeader>,
}

/// `etcdserverpb.AuthDisableRequest`.
#[derive(Clone, PartialEq, ::prost::Message)]
pub(crate) struct AuthDisableRequest {}

/// `etcdserverpb.AuthDisableResponse`.
#[derive(Clone, PartialEq, ::prost::Message)]
pub(crate) struct AuthDisableResponse {
    #[prost(message, optional, tag = "1")]
    pub(crate) header: Option<ResponseHeader>,
}
