//! The kinds whose objects are recorded.

/// A kind that people declare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Tenant,
    Site,
    Device,
}

impl Kind {
    pub const ALL: [Self; 3] = [Self::Tenant, Self::Site, Self::Device];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tenant => "Tenant",
            Self::Site => "Site",
            Self::Device => "Device",
        }
    }

    /// The function of the history that it belongs to.
    pub const fn function(self) -> &'static str {
        match self {
            Self::Tenant => "tenants",
            Self::Site => "sites",
            Self::Device => "devices",
        }
    }
}
