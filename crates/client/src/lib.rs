//! How every program calls a service: gRPC over TLS by the internal CA, with a token, a deadline and the header of the trace.
//!
//! The callers keep what differs between them: where the CA's certificates come from, how the connection is made (at once or when it is needed,
//! directly or through a forwarded port), whose token it is, and what they do about an error.

mod address;
mod error;
mod login;

pub use self::address::{Address, Connection, Limits, read_ca};
pub use self::error::{ClientError, broken, service_error};
pub use self::login::{Login, TokenFile, Trace, bearer};
