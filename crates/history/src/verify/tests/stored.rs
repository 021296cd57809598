//! Tiles and bundles on a disk.

use std::collections::BTreeMap;
use std::convert::Infallible;

use super::*;
use crate::TreeHead;
use crate::merkle::{HashReader as _, leaf_hash};
use crate::tile::{Path, TileId, TileSet, all_tiles, encode_bundle, encode_tile};

struct Disk(BTreeMap<String, Vec<u8>>);

impl TileSource for Disk {
    type Error = Infallible;
    fn tile(&mut self, tile: TileId) -> Result<Vec<u8>, Infallible> {
        Ok(self.0.get(&tile.path().to_string()).cloned().unwrap_or_default())
    }
    fn bundle(&mut self, index: u64, width: u16) -> Result<Vec<u8>, Infallible> {
        Ok(self.0.get(&Path::Entries { index, width }.to_string()).cloned().unwrap_or_default())
    }
}

fn disk(log: &Log) -> Disk {
    let (mut tiles, mut tree) = (TileSet::new(), crate::merkle::Range::empty(0));
    for stored in &log.stored {
        let keep = |node, hash| {
            tiles.store(node, hash);
        };
        tree.append_hash(leaf_hash(&stored.leaf), keep).unwrap();
    }
    let size = log.size();
    let mut disk = BTreeMap::new();
    for tile in all_tiles(size) {
        disk.insert(tile.path().to_string(), encode_tile(tiles.get(tile.level, tile.index).unwrap()));
        if tile.level == 0 {
            let skip = usize::try_from(tile.index).unwrap() * 256;
            let entries = log.stored.iter().skip(skip).take(tile.width.into()).map(|stored| stored.leaf.as_slice());
            disk.insert(Path::entries(tile.index, size).unwrap().to_string(), encode_bundle(entries).unwrap());
        }
    }
    assert!(tiles.read(crate::merkle::Node { level: 0, index: 0 }).is_ok() || size == 0);
    Disk(disk)
}

fn verify(disk: Disk, head: TreeHead) -> Result<(), StoredFlaw> {
    let mut disk = disk;
    let Ok(verdict) = verify_stored(&mut disk, head);
    verdict
}

#[test]
fn what_is_stored_is_what_the_head_says() {
    for size in [0, 1, 3, 256, 257, 600] {
        let log = Log::new(size);
        assert_eq!(verify(disk(&log), log.head(size)), Ok(()));
    }
}

#[test]
fn one_flipped_bit_in_a_tile_or_a_bundle_is_found_there() {
    for (size, step) in [(4, 1), (258, 397)] {
        let log = Log::new(size);
        let paths: Vec<String> = disk(&log).0.into_keys().collect();
        for path in paths {
            let length = disk(&log).0[&path].len();
            for at in (0..length).step_by(step) {
                for bit in (0..8).step_by(if step == 1 { 1 } else { 5 }) {
                    let mut disk = disk(&log);
                    disk.0.get_mut(&path).unwrap()[at] ^= 1 << bit;
                    let flaw = verify(disk, log.head(size)).unwrap_err();
                    assert!(flaw.to_string().contains(&path), "bit {bit} of byte {at} of {path}: {flaw}");
                }
            }
        }
    }
}

#[test]
fn what_is_cut_lost_or_exchanged_is_found() {
    let log = Log::new(300);
    let paths: Vec<String> = disk(&log).0.into_keys().collect();
    assert_eq!(paths, ["tile/0/000", "tile/0/001.p/44", "tile/1/000.p/1", "tile/entries/000", "tile/entries/001.p/44"]);
    for path in paths {
        let mut lost = disk(&log);
        lost.0.remove(&path);
        assert!(verify(lost, log.head(300)).unwrap_err().to_string().contains(&path));
        let mut cut = disk(&log);
        cut.0.get_mut(&path).unwrap().pop();
        assert!(verify(cut, log.head(300)).unwrap_err().to_string().contains(&path));
    }
    let mut swapped = log.restored(300);
    swapped.stored.swap(3, 4);
    let flaw = verify(disk(&swapped), log.head(300)).unwrap_err();
    assert_eq!(flaw, StoredFlaw::Root { size: 300 });
}

#[test]
fn a_log_that_was_rewritten_as_a_whole_is_not_that_of_the_root() {
    let log = Log::new(20);
    let forged = log.rewritten(|stored| stored[3].leaf[40] ^= 1);
    assert_eq!(verify(disk(&forged), log.head(20)), Err(StoredFlaw::Root { size: 20 }));
    // entries that are hashed and signed where they do not belong
    let misplaced = log.rewritten(|stored| stored.swap(3, 4));
    assert_eq!(verify(disk(&misplaced), misplaced.head(20)), Err(StoredFlaw::Entry { sequence: 3, size: 20 }));
}
