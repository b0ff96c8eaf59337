//! The members of the cluster: there is one.

use tonic::Code;

use super::Inner;
use super::error::{
    GrpcError, MEMBER_BAD_URLS, MEMBER_NOT_FOUND, MEMBER_NOT_LEARNER, NOT_ENOUGH_MEMBERS,
};
use crate::etcd::proto::cluster::{
    Member, MemberAddRequest, MemberAddResponse, MemberListResponse, MemberPromoteRequest,
    MemberPromoteResponse, MemberRemoveRequest, MemberRemoveResponse, MemberUpdateRequest,
    MemberUpdateResponse,
};

impl Inner {
    pub(super) fn member_list(&self) -> MemberListResponse {
        MemberListResponse {
            header: self.header_without_revision(),
            members: vec![Member {
                id: self.options.member_id,
                name: self.options.name.clone(),
                peer_urls: self.options.peer_urls.clone(),
                client_urls: self.options.client_urls.clone(),
                is_learner: false,
            }],
        }
    }

    pub(super) fn member_add(
        &self,
        request: &MemberAddRequest,
    ) -> Result<MemberAddResponse, GrpcError> {
        check_urls(&request.peer_urls)?;
        Err(alone("no member can be added"))
    }

    pub(super) fn member_remove(
        &self,
        request: &MemberRemoveRequest,
    ) -> Result<MemberRemoveResponse, GrpcError> {
        self.known(request.id)?;
        Err(NOT_ENOUGH_MEMBERS)
    }

    pub(super) fn member_update(
        &self,
        request: &MemberUpdateRequest,
    ) -> Result<MemberUpdateResponse, GrpcError> {
        self.known(request.id)?;
        check_urls(&request.peer_urls)?;
        Err(alone("it has no peers that would need its URLs"))
    }

    pub(super) fn member_promote(
        &self,
        request: &MemberPromoteRequest,
    ) -> Result<MemberPromoteResponse, GrpcError> {
        self.known(request.id)?;
        Err(MEMBER_NOT_LEARNER)
    }

    fn known(&self, id: u64) -> Result<(), GrpcError> {
        if id == self.options.member_id {
            Ok(())
        } else {
            Err(MEMBER_NOT_FOUND)
        }
    }
}

fn alone(what: &str) -> GrpcError {
    GrpcError::new(
        Code::Unimplemented,
        format!("etcdserver: this server is a cluster of its own: {what}"),
    )
}

/// What etcd takes as the URL of a peer: http or https, a host and a port, and no path.
fn check_urls(urls: &[String]) -> Result<(), GrpcError> {
    let good = |url: &String| {
        let rest = url
            .strip_prefix("http://")
            .or_else(|| url.strip_prefix("https://"))?;
        let (host, port) = rest.rsplit_once(':')?;
        port.parse::<u16>().ok()?;
        (!host.is_empty()).then_some(())
    };
    if urls.is_empty() || urls.iter().any(|url| good(url).is_none()) {
        return Err(MEMBER_BAD_URLS);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_peers_have_a_scheme_a_host_and_a_port() {
        let check = |url: &str| check_urls(&[url.to_owned()]);
        assert_eq!(check("http://10.0.0.1:2380"), Ok(()));
        assert_eq!(check("https://[::1]:2380"), Ok(()));
        for bad in [
            "",
            "nowhere",
            "http://nowhere",
            "http://:2380",
            "http://a:b",
        ] {
            assert_eq!(check(bad), Err(MEMBER_BAD_URLS), "{bad}");
        }
        assert_eq!(check_urls(&[]), Err(MEMBER_BAD_URLS));
    }
}
