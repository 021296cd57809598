use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::tile::TileSet;

/// RFC 6962, section 2.1, as it is written: nothing clever.
fn naive_root(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => Hash::EMPTY,
        [one] => *one,
        more => {
            let k = split(more.len());
            node_hash(&naive_root(&more[..k]), &naive_root(&more[k..]))
        }
    }
}

fn naive_path(m: usize, leaves: &[Hash]) -> Vec<Hash> {
    if leaves.len() == 1 {
        return Vec::new();
    }
    let k = split(leaves.len());
    let (mut path, sibling) = if m < k {
        (naive_path(m, &leaves[..k]), naive_root(&leaves[k..]))
    } else {
        (naive_path(m - k, &leaves[k..]), naive_root(&leaves[..k]))
    };
    path.push(sibling);
    path
}

fn naive_subproof(m: usize, leaves: &[Hash], whole: bool) -> Vec<Hash> {
    let n = leaves.len();
    if m == n {
        return if whole { Vec::new() } else { vec![naive_root(leaves)] };
    }
    let k = split(n);
    let (mut proof, last) = if m <= k {
        (naive_subproof(m, &leaves[..k], whole), naive_root(&leaves[k..]))
    } else {
        (naive_subproof(m - k, &leaves[k..], false), naive_root(&leaves[..k]))
    };
    proof.push(last);
    proof
}

fn split(n: usize) -> usize {
    (0..32).map(|bit| 1 << bit).take_while(|k| *k < n).last().unwrap()
}

fn number(n: usize) -> u64 {
    n.try_into().unwrap()
}

fn leaves(n: u64) -> Vec<Hash> {
    (0..n).map(|i| leaf_hash(&i.to_be_bytes())).collect()
}

/// What a service keeps of a log that grew to these leaves.
fn stored(leaves: &[Hash]) -> (TileSet, Range) {
    let (mut tiles, mut edge) = (TileSet::new(), Range::empty(0));
    for leaf in leaves {
        let node = |node, hash| {
            tiles.store(node, hash);
        };
        edge.append_hash(*leaf, node).unwrap();
    }
    (tiles, edge)
}

fn head(leaves: &[Hash]) -> TreeHead {
    TreeHead { size: number(leaves.len()), root: naive_root(leaves) }
}

fn vectors() -> Value {
    serde_json::from_str(include_str!("../../testdata/merkle.json")).unwrap()
}

fn hash(value: &Value) -> Hash {
    Hash::from_bytes(hex::decode(value.as_str().unwrap()).unwrap().try_into().unwrap())
}

fn hashes(value: &Value) -> Vec<Hash> {
    value.as_array().unwrap().iter().map(hash).collect()
}

#[test]
fn the_published_vectors_hold() {
    let vectors = vectors();
    let entries: Vec<Vec<u8>> =
        vectors["leaves"].as_array().unwrap().iter().map(|leaf| hex::decode(leaf.as_str().unwrap()).unwrap()).collect();
    let leaves: Vec<Hash> = entries.iter().map(|entry| leaf_hash(entry)).collect();
    assert_eq!(leaves, hashes(&vectors["nodes"][0]));
    let mut edge = Range::empty(0);
    let mut seen = Vec::new();
    assert_eq!(edge.root(), Some(hash(&vectors["roots"][0])));
    for (size, leaf) in (1..).zip(&leaves) {
        edge.append_hash(*leaf, |node, hash| seen.push((node, hash))).unwrap();
        assert_eq!(edge.root(), Some(hash(&vectors["roots"][size])));
    }
    assert_eq!(seen.len(), 15);
    for (node, found) in seen {
        assert_eq!(found, hash(&vectors["nodes"][usize::from(node.level)][usize::try_from(node.index).unwrap()]));
    }
    let (tiles, _) = stored(&leaves);
    let root = |size: u64| TreeHead { size, root: hash(&vectors["roots"][usize::try_from(size).unwrap()]) };
    for vector in vectors["inclusion"].as_array().unwrap() {
        let (index, size, proof) = (vector["index"].as_u64().unwrap(), vector["size"].as_u64().unwrap(), hashes(&vector["proof"]));
        assert_eq!(prove_inclusion(&tiles, index, size).unwrap(), proof);
        only_this_inclusion_holds(index, leaves[usize::try_from(index).unwrap()], &proof, root(size));
    }
    for vector in vectors["consistency"].as_array().unwrap() {
        let (old, new, proof) = (vector["old"].as_u64().unwrap(), vector["new"].as_u64().unwrap(), hashes(&vector["proof"]));
        assert_eq!(prove_consistency(&tiles, old, new).unwrap(), proof);
        only_this_consistency_holds(root(old), root(new), &proof);
    }
}

/// Proofs that the published probes try, each of which must be refused.
fn spoiled(proof: &[Hash], others: &[Hash]) -> Vec<Vec<Hash>> {
    let mut spoiled = Vec::new();
    for at in 0..proof.len() {
        let mut bytes = *proof[at].as_bytes();
        bytes[0] ^= 1 << 4;
        let mut changed = proof.to_vec();
        changed[at] = Hash::from_bytes(bytes);
        spoiled.push(changed);
    }
    if let Some((last, rest)) = proof.split_last() {
        spoiled.extend([vec![], rest.to_vec(), proof[1..].to_vec(), [proof, &[*last]].concat(), [&proof[..1], proof].concat()]);
    }
    for other in others.iter().chain(&[Hash::EMPTY, Hash::from_bytes([0; 32])]) {
        spoiled.extend([[proof, &[*other]].concat(), [&[*other], proof].concat()]);
    }
    spoiled
}

fn only_this_inclusion_holds(index: u64, leaf: Hash, proof: &[Hash], head: TreeHead) {
    let refused = |index, leaf, proof: &[Hash], size, root| {
        let proven = verify_inclusion(index, leaf, proof, TreeHead { size, root });
        assert!(proven.is_err(), "entry {index} of {size}: {proof:?}");
    };
    verify_inclusion(index, leaf, proof, head).unwrap();
    let (size, root) = (head.size, head.root);
    for other in [index.wrapping_sub(1), index + 1, index ^ 2, u64::MAX] {
        refused(other, leaf, proof, size, root);
    }
    // a proof says nothing of the size where the path has the same turns, so only sizes with other turns are refused
    for other in [0, index, size / 2, size * 2, u64::MAX] {
        if other != size && inclusion_nodes(index, other).len() != inclusion_nodes(index, size).len() {
            refused(index, leaf, proof, other, root);
        }
    }
    for (leaf, root) in [(Hash::EMPTY, root), (leaf, Hash::EMPTY), (root, leaf)] {
        if (leaf, root) != (root, leaf) {
            refused(index, leaf, proof, size, root);
        }
    }
    for proof in spoiled(proof, &[leaf, root]) {
        refused(index, leaf, &proof, size, root);
    }
}

fn only_this_consistency_holds(old: TreeHead, new: TreeHead, proof: &[Hash]) {
    let refused = |old: TreeHead, new: TreeHead, proof: &[Hash]| {
        assert!(verify_consistency(old, new, proof).is_err(), "{} to {}: {proof:?}", old.size, new.size);
    };
    verify_consistency(old, new, proof).unwrap();
    if old.size != new.size {
        refused(new, old, proof);
        refused(TreeHead { root: new.root, ..old }, TreeHead { root: old.root, ..new }, proof);
        for size in [old.size - 1, old.size + 1, old.size ^ 2] {
            refused(TreeHead { size, ..old }, new, proof);
        }
        refused(old, TreeHead { size: new.size * 2, ..new }, proof);
        refused(old, TreeHead { size: new.size / 2, ..new }, proof);
    }
    refused(TreeHead { root: Hash::EMPTY, ..old }, new, proof);
    refused(old, TreeHead { root: Hash::EMPTY, ..new }, proof);
    for proof in spoiled(proof, &[old.root, new.root]) {
        refused(old, new, &proof);
    }
}

#[test]
fn every_root_and_inclusion_up_to_300_is_that_of_a_naive_tree() {
    let leaves = leaves(300);
    let (tiles, _) = stored(&leaves);
    let mut edge = Range::empty(0);
    for (size, leaf) in (1..).zip(&leaves) {
        edge.append_hash(*leaf, |_, _| ()).unwrap();
        let head = head(&leaves[..size]);
        assert_eq!(edge.root(), Some(head.root));
        assert_eq!(root_of(&tiles, head.size).unwrap(), head.root);
        for index in (0..size).filter(|index| size < 70 || index % 7 == 0 || size - index < 4) {
            let proof = prove_inclusion(&tiles, number(index), head.size).unwrap();
            if size < 70 {
                assert_eq!(proof, naive_path(index, &leaves[..size]), "{index} of {size}");
            }
            verify_inclusion(number(index), leaves[index], &proof, head).unwrap();
        }
    }
}

#[test]
fn every_growth_up_to_300_is_proven_as_in_a_naive_tree() {
    let leaves = leaves(300);
    let (tiles, _) = stored(&leaves);
    let heads: Vec<TreeHead> = (0..=leaves.len()).map(|size| head(&leaves[..size])).collect();
    for new in 1..=leaves.len() {
        for old in (1..=new).filter(|old| new < 130 || old % 7 == 0 || new - old < 4) {
            let proof = prove_consistency(&tiles, number(old), number(new)).unwrap();
            if new < 70 {
                assert_eq!(proof, naive_subproof(old, &leaves[..new], true), "{old} to {new}");
            }
            verify_consistency(heads[old], heads[new], &proof).unwrap();
        }
        assert_eq!(prove_consistency(&tiles, 0, number(new)).unwrap(), []);
        verify_consistency(heads[0], heads[new], &[]).unwrap();
    }
}

#[test]
fn a_right_edge_is_rebuilt_from_tiles() {
    let leaves = leaves(70_000);
    let (tiles, edge) = stored(&leaves);
    let nodes = Node::cover(0, 70_000);
    let hashes: Vec<Hash> = nodes.iter().map(|node| tiles.read(*node).unwrap()).collect();
    let mut rebuilt = Range::from_hashes(0, 70_000, &hashes).unwrap();
    assert_eq!(rebuilt, edge);
    rebuilt.append_hash(leaves[3], |_, _| ()).unwrap();
    assert_eq!(rebuilt.root().unwrap(), naive_root(&[leaves.as_slice(), &leaves[3..4]].concat()));
}

proptest! {
    /// Any cut of a tree into ranges gives its root again.
    #[test]
    fn ranges_join_to_the_tree(size in 1_u64..400, cuts in proptest::collection::vec(0_u64..400, 0..5)) {
        let leaves = leaves(size);
        let mut cuts: Vec<u64> = cuts.into_iter().filter(|cut| *cut <= size).chain([0, size]).collect();
        cuts.sort_unstable();
        let mut whole = Range::empty(0);
        for cut in cuts.windows(2) {
            let mut part = Range::empty(cut[0]);
            for leaf in &leaves[usize::try_from(cut[0]).unwrap()..usize::try_from(cut[1]).unwrap()] {
                part.append_hash(*leaf, |_, _| ()).unwrap();
            }
            prop_assert_eq!(part.root().is_some(), cut[0] == 0);
            let hashes: Vec<Hash> = part.hashes().collect();
            prop_assert_eq!(&Range::from_hashes(cut[0], cut[1], &hashes).unwrap(), &part);
            whole.join(&part).unwrap();
        }
        prop_assert_eq!(whole.root().unwrap(), naive_root(&leaves));
    }

    #[test]
    fn nothing_but_the_right_proof_holds(size in 2_u64..300, a in any::<u64>(), b in any::<u64>()) {
        let leaves = leaves(size);
        let (tiles, _) = stored(&leaves);
        let (index, old) = (a % size, 1 + b % size);
        let proof = prove_inclusion(&tiles, index, size).unwrap();
        only_this_inclusion_holds(index, leaves[usize::try_from(index).unwrap()], &proof, head(&leaves));
        let proof = prove_consistency(&tiles, old, size).unwrap();
        only_this_consistency_holds(head(&leaves[..usize::try_from(old).unwrap()]), head(&leaves), &proof);
    }

    /// No numbers, however large, make arithmetic go wrong.
    #[test]
    fn huge_numbers_are_refused_or_answered(a in any::<u64>(), b in any::<u64>(), level in any::<u8>(), length in 0_usize..70) {
        let proof = vec![Hash::EMPTY; length];
        let (some, other) = (TreeHead { size: a, root: Hash::EMPTY }, TreeHead { size: b, root: Hash::EMPTY });
        prop_assert!(verify_inclusion(a, Hash::EMPTY, &proof, other).is_err());
        prop_assert!(a == b || a == 0 || verify_consistency(some, other, &proof).is_err());
        let node = Node { level, index: a };
        if let (Some(begin), Some(end)) = (node.begin(), node.end()) {
            prop_assert!(begin < end && end <= MAX_SIZE);
            prop_assert_eq!(Node::cover(begin, end), vec![node]);
        }
        for nodes in [inclusion_nodes(a, b), consistency_nodes(a, b), Node::cover(a, b)] {
            prop_assert!(nodes.len() <= 126 && nodes.iter().all(|node| node.index >> (63 - node.level.min(63)) <= 1));
        }
        prop_assert!(TileSet::new().read(node).is_err());
    }
}

#[test]
fn a_proof_of_the_last_of_the_largest_tree_has_63_hashes_and_no_more() {
    assert_eq!(inclusion_nodes(0, MAX_SIZE).len(), 62 + 62);
    assert_eq!(prove_inclusion(&Everywhere, 0, MAX_SIZE).unwrap().len(), 63);
    assert_eq!(inclusion_nodes(0, MAX_SIZE + 1), []);
    assert_eq!(prove_consistency(&Everywhere, 1, MAX_SIZE).unwrap().len(), 63);
    let mut full = Range::from_hashes(0, MAX_SIZE, &vec![Hash::EMPTY; 63]).unwrap();
    assert_eq!(full.append(b""), Err(RangeError::Full));
}

/// One million entries: at most 20 hashes, well below what is promised.
#[test]
fn a_proof_at_a_million_entries_is_short() {
    for index in (0..1_000_000).step_by(9_973) {
        assert!(prove_inclusion(&Everywhere, index, 1_000_000).unwrap().len() <= 20);
    }
}

struct Everywhere;

impl HashReader for Everywhere {
    type Error = std::convert::Infallible;
    fn read(&self, _: Node) -> Result<Hash, Self::Error> {
        Ok(Hash::EMPTY)
    }
}

#[test]
fn ranges_refuse_what_does_not_fit() {
    assert!(matches!(Range::from_hashes(0, 3, &[Hash::EMPTY]), Err(RangeError::Hashes { wanted: 2, given: 1, .. })));
    assert!(matches!(Range::from_hashes(3, 2, &[]), Err(RangeError::Bounds { .. })));
    assert!(matches!(Range::empty(0).join(&Range::empty(1)), Err(RangeError::Apart { end: 0, begin: 1 })));
    let hash = sha256(b"");
    assert_eq!(hash, Hash::EMPTY);
    assert_eq!(hash.to_string().parse::<Hash>().unwrap(), hash);
    // the last character carries two bits only: another one with the same two is refused
    assert!(hash.to_string().replace("FU=", "FV=").parse::<Hash>().is_err());
}
