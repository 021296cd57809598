//! The apiserver's answers, and what refused a request.

use std::fmt;

/// What refused a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Guard {
    Rbac,
    PodSecurity,
    Quota,
    /// A ValidatingAdmissionPolicy.
    Policy,
    /// Another admission plugin or a webhook.
    Admission,
}

impl fmt::Display for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rbac => "RBAC",
            Self::PodSecurity => "Pod Security",
            Self::Quota => "the quota",
            Self::Policy => "an admission policy",
            Self::Admission => "admission",
        })
    }
}

/// Whether something is possible.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It is possible, or nothing that protects a group refused it. Says why or what happened.
    Allowed {
        because: String,
    },
    Refused {
        by: Guard,
        message: String,
    },
}

impl Answer {
    pub fn is_allowed(&self) -> bool {
        matches!(self, Self::Allowed { .. })
    }

    /// Refused by RBAC, by the answer of an authorizer, which has no message.
    pub fn denied() -> Self {
        Self::Refused { by: Guard::Rbac, message: String::new() }
    }
}

/// Why an answer says nothing about the owner.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    #[error("{0}")]
    MayNotImpersonate(String),
    #[error("the cluster does not know you; log in to it again, and check with: kubectl auth whoami")]
    Unauthorized,
    #[error("the apiserver answered {code}: {message}")]
    NoAnswer { code: u16, message: String },
}

/// Reads the answer to a request that was made as the owner. Other errors are no refusals: a request whose object is missing or invalid has
/// passed authorization and admission, which come first.
pub fn of_response(code: u16, message: &str) -> Result<Answer, Trouble> {
    let refused = |by| Ok(Answer::Refused { by, message: message.to_owned() });
    match code {
        403 if message.contains(" cannot impersonate") => Err(Trouble::MayNotImpersonate(message.to_owned())),
        403 if message.contains("denied request: ") => refused(Guard::Policy),
        403 if message.contains("violates PodSecurity") => refused(Guard::PodSecurity),
        403 if message.contains("exceeded quota") || message.contains("failed quota") => refused(Guard::Quota),
        403 if message.contains("User \"") && message.contains(" cannot ") => refused(Guard::Rbac),
        403 => refused(Guard::Admission),
        401 => Err(Trouble::Unauthorized),
        429 | 500.. => Err(Trouble::NoAnswer { code, message: message.to_owned() }),
        200..=299 => Ok(Answer::Allowed { because: "the apiserver did it, dry".to_owned() }),
        _ => Ok(Answer::Allowed {
            because: format!("neither authorization nor admission refused; the apiserver answered {code}: {message}"),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_refused_is_told_apart() {
        let by = |message: &str| match of_response(403, message) {
            Ok(Answer::Refused { by, .. }) => by,
            other => panic!("{other:?}"),
        };
        assert_eq!(by(r#"pods is forbidden: User "a" cannot list resource "pods" in API group "" in the namespace "tn-a""#), Guard::Rbac);
        assert_eq!(by(r#"pods "x" is forbidden: violates PodSecurity "restricted:latest": host namespaces"#), Guard::PodSecurity);
        assert_eq!(by(r#"services "x" is forbidden: exceeded quota: tenant, requested: services=1"#), Guard::Quota);
        assert_eq!(by(r#"pods "x" is forbidden: failed quota: tenant: must specify limits.cpu"#), Guard::Quota);
        assert_eq!(by("x is forbidden: ValidatingAdmissionPolicy 'p' with binding 'p' denied request: User \"a\" cannot"), Guard::Policy);
        assert_eq!(by("pods \"x\" is forbidden: error looking up service account"), Guard::Admission);
    }

    #[test]
    fn what_says_nothing_about_the_owner_is_no_answer() {
        // as 1.36 and later say it, and as all before them did
        for message in [
            r#"secrets is forbidden: User "me" cannot impersonate-on:user-info:list resource "secrets" in API group """#,
            r#"users "a" is forbidden: User "me" cannot impersonate resource "users" in API group "" at the cluster scope"#,
        ] {
            assert!(matches!(of_response(403, message), Err(Trouble::MayNotImpersonate(_))), "{message}");
        }
        assert!(of_response(401, "").is_err() && of_response(429, "").is_err() && of_response(503, "").is_err());
    }

    /// A request that reached its object was not refused, whatever became of it.
    #[test]
    fn only_a_refusal_is_one() {
        for code in [200, 201, 400, 404, 409, 422] {
            assert!(of_response(code, "").unwrap().is_allowed(), "{code}");
        }
    }
}
