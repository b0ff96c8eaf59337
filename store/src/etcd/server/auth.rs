//! Users: there are none. Who may connect is told apart by certificates.

use orlop_core::store::StoreError;
use tonic::Code;

use super::Inner;
use super::error::{AUTH_NOT_ENABLED, GrpcError};
use crate::etcd::proto::auth::{AuthDisableResponse, AuthStatusResponse};

impl Inner {
    pub(super) async fn auth_status(&self) -> Result<AuthStatusResponse, StoreError> {
        Ok(AuthStatusResponse {
            header: self.header(self.store.revision().await?),
            enabled: false,
            auth_revision: 1,
        })
    }

    /// It is.
    pub(super) async fn auth_disable(&self) -> Result<AuthDisableResponse, StoreError> {
        Ok(AuthDisableResponse {
            header: self.header(self.store.revision().await?),
        })
    }
}

/// What a client that wants to log in is told.
pub(super) fn authenticate() -> GrpcError {
    AUTH_NOT_ENABLED
}

/// What a client that wants to change users and roles is told.
pub(super) fn unsupported() -> GrpcError {
    GrpcError::new(
        Code::Unimplemented,
        "etcdserver: this server has no users and roles; clients are told apart by their certificates",
    )
}
