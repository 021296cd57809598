//! Whether a group's owners can do no more than they should, and whether their namespace is closed (C7, C13).
//!
//! The checks of the multi-tenancy benchmark of kubernetes-sigs (kubectl-mtb), and what that benchmark does not look at, as data; what
//! is asked of the apiserver for each; and what its answers and the live objects mean. No client lives here: the operator asks by
//! SubjectAccessReview, `tsujiban conformance` tries as the owner, and both are judged by the same functions.

pub mod access;
pub mod answer;
pub mod catalogue;
pub mod judge;
pub mod live;
pub mod pods;
pub mod probes;
pub mod subject;
pub mod summary;

pub use access::{Access, Depth, Scope, ScopeNames};
pub use answer::{Answer, Guard, Trouble};
pub use catalogue::{CHECKS, Check, Language, Text};
pub use judge::{Asked, Evidence, Judged, OwnerAnswers, Verdict, judge_all};
pub use live::{Live, Wanted};
pub use pods::PodTrait;
pub use probes::Probe;
pub use subject::Subject;
pub use summary::Summary;
