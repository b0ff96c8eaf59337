//! What can be wrong with a scheduler's configuration.

/// A scheduler cannot be built like this.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Two plug-ins of a profile have one name.
    #[error("profile {profile:?}: there are two plug-ins named {plugin:?}")]
    DuplicatePlugin {
        /// The profile.
        profile: String,
        /// The name.
        plugin: String,
    },
    /// Two profiles have one name.
    #[error("there are two profiles named {0:?}")]
    DuplicateProfile(String),
    /// A profile has no name.
    #[error("a profile needs a scheduler name")]
    NamelessProfile,
    /// There is no profile.
    #[error("a scheduler needs at least one profile")]
    NoProfile,
    /// A profile names a plug-in that it does not have.
    #[error("profile {profile:?} has no plug-in named {plugin:?}")]
    UnknownPlugin {
        /// The profile.
        profile: String,
        /// The name.
        plugin: String,
    },
    /// A weight is not between 1 and 100.
    #[error(
        "profile {profile:?}: the weight of {plugin:?} must be between 1 and 100, not {weight}"
    )]
    Weight {
        /// The profile.
        profile: String,
        /// The plug-in.
        plugin: String,
        /// The weight.
        weight: i64,
    },
    /// A percentage is above 100.
    #[error(
        "profile {profile:?}: percentageOfNodesToScore must be between 0 and 100, not {percentage}"
    )]
    Percentage {
        /// The profile.
        profile: String,
        /// The percentage.
        percentage: u32,
    },
    /// A profile has no plug-in that orders the queue, or several.
    #[error("profile {profile:?} needs exactly one plug-in for QueueSort and has {count}")]
    QueueSort {
        /// The profile.
        profile: String,
        /// How many it has.
        count: usize,
    },
    /// The profiles order the one queue differently.
    #[error("all profiles must use the same plug-in for QueueSort: {0:?} and {1:?} differ")]
    QueueSortsDiffer(String, String),
    /// A profile has no plug-in that binds.
    #[error("profile {0:?} needs a plug-in for Bind")]
    NoBind(String),
    /// A profile has more plug-ins than can be told apart.
    #[error("profile {0:?} has more than 64 plug-ins")]
    TooManyPlugins(String),
}
