//! The entries that are appended: operations as short as those that were promised a speed, and no two the same.

use anyhow::{Result, ensure};
use tsujiban_audit::engine::Addition;
use tsujiban_audit::rpc;
use tsujiban_core::clock::{Clock, SystemClock};
use tsujiban_proto::access::v1::Operation as Does;
use tsujiban_proto::audit::v1::{Actor, ActorKind, NewEntry, Operation, Phase, Result as Came};
use tsujiban_proto::time::to_wire;

/// How long an entry's body is, in bytes, as the engine gets it. What was promised is of 300 bytes; an operation that says nothing has 313.
pub const BYTES: usize = 320;

/// Makes entries.
#[derive(Clone)]
pub struct Entries(Operation);

impl Entries {
    pub fn new() -> Result<Self> {
        let mut operation = Operation {
            id: vec![0; 16],
            phase: Phase::Outcome.into(),
            time: Some(to_wire(SystemClock.now())),
            actor: Some(Actor { kind: ActorKind::Staff.into(), id: String::new() }),
            operation: Does::View.into(),
            result: Came::Allowed.into(),
            ..Operation::default()
        };
        let bytes = |operation: &Operation| -> Result<usize> { Ok(rpc::from_wire(operation.clone())?.encode()?.len()) };
        operation.target = "x".repeat(BYTES.saturating_sub(bytes(&operation)?));
        ensure!(bytes(&operation)? == BYTES, "an entry has {} bytes", bytes(&operation)?);
        Ok(Self(operation))
    }

    /// The n-th entry, for one of so many groups that is chosen by chance.
    pub fn wire(&self, n: u64, groups: u64) -> NewEntry {
        let chance = mix(n);
        let id = (u128::from(chance) << 64 | u128::from(n)).to_be_bytes().to_vec();
        NewEntry { group: group(chance % groups.max(1)), id: id.clone(), operation: Some(Operation { id, ..self.0.clone() }) }
    }

    /// The same as the engine takes it.
    pub fn addition(&self, n: u64, groups: u64) -> Result<Addition> {
        Ok(rpc::addition(self.wire(n, groups))?)
    }
}

pub fn group(n: u64) -> String {
    format!("group-{n}")
}

/// Numbers that look like chance: SplitMix64's finalizer.
pub fn mix(n: u64) -> u64 {
    let n = (n ^ (n >> 30)).wrapping_add(0x9e37_79b9_7f4a_7c15).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_entry_is_of_one_length_and_another_one() {
        let entries = Entries::new().unwrap();
        let additions: Vec<Addition> = (0..100).map(|n| entries.addition(n, 7).unwrap()).collect();
        assert!(additions.iter().all(|addition| addition.body.len() == BYTES));
        let ids: std::collections::HashSet<_> = additions.iter().map(|addition| addition.id).collect();
        let owners: std::collections::HashSet<_> = additions.iter().map(|addition| &addition.owner).collect();
        assert_eq!((ids.len(), owners.len()), (100, 7));
    }
}
