//! The methods of etcd's services.

/// How messages go in a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// One there, one back.
    Unary,
    /// One there, many back.
    ServerStream,
    /// Many there, many back.
    BidiStream,
}

macro_rules! methods {
    ($($method:ident = $service:literal $name:literal $shape:ident;)*) => {
        /// A method.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Method {
            $($method,)*
        }

        impl Method {
            /// All of them, in the order of their numbers.
            pub(super) const ALL: &[Method] = &[$(Method::$method,)*];

            /// The method behind a path.
            pub(super) fn at(path: &str) -> Option<Self> {
                match path {
                    $(concat!("/etcdserverpb.", $service, "/", $name) => Some(Self::$method),)*
                    _ => None,
                }
            }

            /// The service, the name, and how messages go.
            pub(super) const fn about(self) -> (&'static str, &'static str, Shape) {
                match self {
                    $(Self::$method => (concat!("etcdserverpb.", $service), $name, Shape::$shape),)*
                }
            }
        }
    };
}

methods! {
    Range = "KV" "Range" Unary;
    Put = "KV" "Put" Unary;
    DeleteRange = "KV" "DeleteRange" Unary;
    Txn = "KV" "Txn" Unary;
    Compact = "KV" "Compact" Unary;
    Watch = "Watch" "Watch" BidiStream;
    LeaseGrant = "Lease" "LeaseGrant" Unary;
    LeaseRevoke = "Lease" "LeaseRevoke" Unary;
    LeaseKeepAlive = "Lease" "LeaseKeepAlive" BidiStream;
    LeaseTimeToLive = "Lease" "LeaseTimeToLive" Unary;
    LeaseLeases = "Lease" "LeaseLeases" Unary;
    MemberAdd = "Cluster" "MemberAdd" Unary;
    MemberRemove = "Cluster" "MemberRemove" Unary;
    MemberUpdate = "Cluster" "MemberUpdate" Unary;
    MemberList = "Cluster" "MemberList" Unary;
    MemberPromote = "Cluster" "MemberPromote" Unary;
    Alarm = "Maintenance" "Alarm" Unary;
    Status = "Maintenance" "Status" Unary;
    Defragment = "Maintenance" "Defragment" Unary;
    Hash = "Maintenance" "Hash" Unary;
    HashKv = "Maintenance" "HashKV" Unary;
    Snapshot = "Maintenance" "Snapshot" ServerStream;
    MoveLeader = "Maintenance" "MoveLeader" Unary;
    Downgrade = "Maintenance" "Downgrade" Unary;
    AuthEnable = "Auth" "AuthEnable" Unary;
    AuthDisable = "Auth" "AuthDisable" Unary;
    AuthStatus = "Auth" "AuthStatus" Unary;
    Authenticate = "Auth" "Authenticate" Unary;
    UserAdd = "Auth" "UserAdd" Unary;
    UserGet = "Auth" "UserGet" Unary;
    UserList = "Auth" "UserList" Unary;
    UserDelete = "Auth" "UserDelete" Unary;
    UserChangePassword = "Auth" "UserChangePassword" Unary;
    UserGrantRole = "Auth" "UserGrantRole" Unary;
    UserRevokeRole = "Auth" "UserRevokeRole" Unary;
    RoleAdd = "Auth" "RoleAdd" Unary;
    RoleGet = "Auth" "RoleGet" Unary;
    RoleList = "Auth" "RoleList" Unary;
    RoleDelete = "Auth" "RoleDelete" Unary;
    RoleGrantPermission = "Auth" "RoleGrantPermission" Unary;
    RoleRevokePermission = "Auth" "RoleRevokePermission" Unary;
}
