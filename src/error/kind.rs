use super::Error;

/// What a caller can do about an [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The input has to be changed.
    InvalidInput,
    /// Something stored is damaged.
    Damage,
    /// What was asked for does not exist.
    NotFound,
    /// Credentials are needed.
    Unauthorized,
    /// The network or the registry failed, also when asked again.
    Network,
    /// Bytes did not match their digest or length.
    Mismatch,
    /// Space has to be freed.
    NoSpace,
    /// What must not be dropped takes all the room that the store may take.
    OverCap,
    /// There is no store.
    NoStore,
    /// Somebody else has to finish first.
    Locked,
    /// Anything else.
    Other,
}

impl Error {
    /// The kind of this error.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::InvalidDigest { .. }
            | Error::InvalidReference { .. }
            | Error::InvalidPlatform { .. }
            | Error::InvalidSetting { .. }
            | Error::InvalidProxy { .. } => ErrorKind::InvalidInput,
            Error::Damaged { .. } | Error::UnreadableRoot { .. } => ErrorKind::Damage,
            Error::RefNotFound { .. }
            | Error::BlobNotFound { .. }
            | Error::LeaseNotFound { .. }
            | Error::NoPlatform { .. }
            | Error::Registry { status: 404, .. } => ErrorKind::NotFound,
            Error::Unauthorized { .. }
            | Error::Credentials { .. }
            | Error::Registry { status: 401 | 403, .. } => ErrorKind::Unauthorized,
            Error::Network { .. }
            | Error::Registry { .. }
            | Error::BadResponse { .. }
            | Error::RefusedAddress { .. }
            | Error::BlobChanged { .. }
            | Error::UnusableRange { .. } => ErrorKind::Network,
            // Wrong bytes anywhere are worth more attention than a server that is away.
            Error::Endpoints { errors } => {
                let mut kinds = errors.iter().map(Error::kind);
                match kinds.clone().any(|kind| kind == ErrorKind::Mismatch) {
                    true => ErrorKind::Mismatch,
                    false => kinds.next_back().unwrap_or(ErrorKind::Network),
                }
            }
            Error::DigestMismatch { .. }
            | Error::SizeMismatch { .. }
            | Error::CorruptBlob { .. } => ErrorKind::Mismatch,
            Error::NoRoom(room) if room.cap.is_some() => ErrorKind::OverCap,
            Error::NoRoom(_) | Error::NoSpace { .. } | Error::DirectoryFull { .. } => {
                ErrorKind::NoSpace
            }
            Error::NoStore { .. } => ErrorKind::NoStore,
            Error::Locked { .. } => ErrorKind::Locked,
            _ => ErrorKind::Other,
        }
    }
}
