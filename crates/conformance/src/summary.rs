//! All verdicts of a group in a few words.

use crate::judge::{Judged, Verdict};

/// How many failing checks a message describes.
const DESCRIBED: usize = 3;

/// How many checks ended how.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    pub holds: usize,
    pub denied_by_rbac: usize,
    /// Those of `denied_by_rbac` that nothing but RBAC would refuse.
    pub by_rbac_alone: Vec<&'static str>,
    pub not_applicable: Vec<&'static str>,
    pub fails: Vec<(&'static str, String)>,
}

impl Summary {
    pub fn of(judged: &[Judged]) -> Self {
        let mut summary = Self::default();
        for Judged { check, verdict } in judged {
            match verdict {
                Verdict::Holds { .. } => summary.holds += 1,
                Verdict::DeniedByRbac { also } => {
                    summary.denied_by_rbac += 1;
                    if also.is_none() {
                        summary.by_rbac_alone.push(check.id);
                    }
                }
                Verdict::NotApplicable { .. } => summary.not_applicable.push(check.id),
                Verdict::Fails { why } => summary.fails.push((check.id, why.clone())),
            }
        }
        summary
    }

    /// Whether nothing fails.
    pub fn conforms(&self) -> bool {
        self.fails.is_empty()
    }

    /// The message of the condition.
    pub fn message(&self, tenant: &str) -> String {
        if !self.conforms() {
            return self.failures(tenant);
        }
        let mut text = format!("{} checks hold", self.holds);
        if self.denied_by_rbac > 0 {
            text = format!("{text}, {} more are denied by RBAC, since no owner may create pods or Services", self.denied_by_rbac);
        }
        if !self.by_rbac_alone.is_empty() {
            text = format!("{text} (by RBAC alone: {})", self.by_rbac_alone.join(", "));
        }
        if !self.not_applicable.is_empty() {
            text = format!("{text}; not applicable: {}", self.not_applicable.join(", "));
        }
        text
    }

    fn failures(&self, tenant: &str) -> String {
        let described = self.fails.iter().take(DESCRIBED).map(|(id, why)| format!("{id}: {why}")).collect::<Vec<_>>().join(". ");
        let rest: Vec<&str> = self.fails.iter().skip(DESCRIBED).map(|(id, _)| *id).collect();
        let rest = if rest.is_empty() { String::new() } else { format!(". Also: {}", rest.join(", ")) };
        format!(
            "{described}{rest}. Remove what gives an owner more than ClusterRole tsujiban-tenant-owner, or take the owner out of spec.owners, and look again with: tsujiban conformance {tenant}"
        )
    }
}
