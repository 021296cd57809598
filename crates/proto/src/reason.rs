//! [`Reason`] on the wire.

use tsujiban_core::outcome::Reason;

use crate::backup::v1 as wire;

impl From<Reason> for wire::Reason {
    fn from(reason: Reason) -> Self {
        match reason {
            Reason::Timeout => Self::Timeout,
            Reason::Auth => Self::Auth,
            Reason::HostKeyMismatch => Self::HostKeyMismatch,
            Reason::HostKeyUnconfirmed => Self::HostKeyUnconfirmed,
            Reason::AddressNotAllowed => Self::AddressNotAllowed,
            Reason::Truncated => Self::Truncated,
            Reason::Protocol => Self::Protocol,
            Reason::Store => Self::Store,
        }
    }
}

impl wire::Reason {
    /// The reason in the words of the domain; `None` for an unspecified one.
    pub fn known(self) -> Option<Reason> {
        Reason::ALL.into_iter().find(|reason| Self::from(*reason) == self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        for reason in Reason::ALL {
            assert_eq!(wire::Reason::from(reason).known(), Some(reason));
        }
        assert_eq!(wire::Reason::Unspecified.known(), None);
    }
}
