//! An owner, as the apiserver knows them.

use tsujiban_api::tenant::{Owner, OwnerKind};

/// The user that stands for a member of a group of people. No binding names it, so that its rights come from the group alone.
pub const MEMBER: &str = "tsujiban-conformance";
const AUTHENTICATED: &str = "system:authenticated";

/// Who is asked about, or impersonated.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subject {
    /// `User yamada@example.co.jp`.
    pub label: String,
    pub user: String,
    /// Groups that have to be named when impersonating. The apiserver adds those that follow from the user.
    pub groups: Vec<String>,
    implied: Vec<String>,
}

impl Subject {
    pub fn of(owner: &Owner) -> Self {
        let name = owner.name.clone();
        match owner.kind {
            OwnerKind::User => {
                Self { label: format!("User {name}"), user: name, groups: Vec::new(), implied: vec![AUTHENTICATED.to_owned()] }
            }
            OwnerKind::Group => Self {
                label: format!("Group {name}"),
                user: MEMBER.to_owned(),
                groups: vec![name],
                implied: vec![AUTHENTICATED.to_owned()],
            },
            OwnerKind::ServiceAccount => {
                let namespace = owner.namespace.clone().unwrap_or_default();
                Self {
                    label: format!("ServiceAccount {namespace}/{name}"),
                    user: format!("system:serviceaccount:{namespace}:{name}"),
                    groups: Vec::new(),
                    implied: vec![
                        "system:serviceaccounts".to_owned(),
                        format!("system:serviceaccounts:{namespace}"),
                        AUTHENTICATED.to_owned(),
                    ],
                }
            }
        }
    }

    /// The same subject, in these groups besides.
    #[must_use]
    pub fn in_groups(mut self, groups: &[String]) -> Self {
        if !groups.is_empty() {
            // named groups replace those that the apiserver would add for a ServiceAccount
            let accounts = self.implied.iter().filter(|group| group.starts_with("system:serviceaccounts")).cloned();
            self.groups.extend(accounts.collect::<Vec<_>>());
            self.groups.extend(groups.iter().cloned());
        }
        self
    }

    /// All groups, as a SubjectAccessReview needs them.
    pub fn all_groups(&self) -> Vec<String> {
        let mut all: Vec<String> = self.groups.iter().chain(&self.implied).cloned().collect();
        all.sort();
        all.dedup();
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(kind: OwnerKind, name: &str, namespace: Option<&str>) -> Subject {
        Subject::of(&Owner { kind, name: name.to_owned(), namespace: namespace.map(str::to_owned) })
    }

    #[test]
    fn every_kind_is_known_as_the_apiserver_knows_it() {
        let user = subject(OwnerKind::User, "yamada", None);
        assert_eq!((user.user.as_str(), user.all_groups()), ("yamada", vec![AUTHENTICATED.to_owned()]));
        let group = subject(OwnerKind::Group, "admins", None);
        assert_eq!((group.user.as_str(), group.groups.as_slice()), (MEMBER, &["admins".to_owned()][..]));
        assert_eq!(group.all_groups(), ["admins", AUTHENTICATED]);
        let account = subject(OwnerKind::ServiceAccount, "deployer", Some("ci"));
        assert_eq!(account.user, "system:serviceaccount:ci:deployer");
        assert_eq!(account.all_groups(), [AUTHENTICATED, "system:serviceaccounts", "system:serviceaccounts:ci"]);
        assert!(account.groups.is_empty(), "the apiserver adds them");
        let more = account.in_groups(&["ops".to_owned()]);
        assert_eq!(more.groups, ["system:serviceaccounts", "system:serviceaccounts:ci", "ops"]);
    }
}
