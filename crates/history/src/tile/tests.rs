use proptest::prelude::*;

use super::*;
use crate::Hash;
use crate::merkle::{HashReader, Range, leaf_hash};

fn tile(level: u8, index: u64, width: u16) -> Path {
    Path::Tile(TileId { level, index, width })
}

#[test]
fn paths_are_those_of_the_specification() {
    for (path, text) in [
        (Path::Checkpoint, "checkpoint"),
        (tile(0, 0, 256), "tile/0/000"),
        (tile(0, 273, 112), "tile/0/273.p/112"),
        (tile(1, 1, 17), "tile/1/001.p/17"),
        (tile(63, 999, 1), "tile/63/999.p/1"),
        (tile(0, 1000, 256), "tile/0/x001/000"),
        (tile(2, 1_234_067, 256), "tile/2/x001/x234/067"),
        (Path::Entries { index: 1_234_067, width: 8 }, "tile/entries/x001/x234/067.p/8"),
        (Path::Entries { index: u64::MAX, width: 256 }, "tile/entries/x018/x446/x744/x073/x709/x551/615"),
    ] {
        assert_eq!((path.to_string().as_str(), text.parse()), (text, Ok(path)));
    }
}

#[test]
fn other_paths_are_refused() {
    for bad in [
        "",
        "checkpoint/",
        "/checkpoint",
        "tile",
        "tile/0",
        "tile/0/",
        "tile/00/000",
        "tile/64/000",
        "tile/-1/000",
        "tile/8/00",
        "tile/0/0000",
        "tile/0/x000/000",
        "tile/0/x001/x000",
        "tile/0/001/000",
        "tile/0/1000",
        "tile/0/000.p/0",
        "tile/0/000.p/256",
        "tile/0/000.p/08",
        "tile/0/000.p/",
        "tile/0/000.p/1/",
        "tile/0/000.p/1.p/1",
        "tile/entries/x1/000",
        "tile/entries/../000",
        "tile/entries/000 ",
        "tile/entries/x018/x446/x744/x073/x709/x551/616",
        "tile/0/٠٠٠",
        "tile/0/0a00",
    ] {
        assert!(bad.parse::<Path>().is_err(), "{bad}");
    }
}

/// The example of the specification: 273 whole tiles of level 0, then 112, 1 whole and 17, 1.
#[test]
fn a_tree_of_70000_has_the_tiles_of_the_specification() {
    let partial: Vec<String> = all_tiles(70_000).filter(|tile| !tile.is_whole()).map(|tile| tile.path().to_string()).collect();
    assert_eq!(partial, ["tile/0/273.p/112", "tile/1/001.p/17", "tile/2/000.p/1"]);
    assert_eq!(all_tiles(70_000).filter(|tile| tile.is_whole()).count(), 274);
    assert_eq!(all_tiles(256).map(|tile| tile.path().to_string()).collect::<Vec<_>>(), ["tile/0/000", "tile/1/000.p/1"]);
    assert_eq!(all_tiles(0).count(), 0);
    assert_eq!(Path::entries(273, 70_000).unwrap().to_string(), "tile/entries/273.p/112");
    assert_eq!((TileId::of(0, 274, 70_000), TileId::of(8, 0, 70_000), TileId::of(0, u64::MAX, u64::MAX)), (None, None, None));
}

#[test]
fn bundles_are_lengths_and_entries() {
    let entries: [&[u8]; 3] = [b"", b"one", &[7; 300]];
    let bundle = encode_bundle(entries).unwrap();
    assert_eq!(bundle.get(..9), Some(&[0, 0, 0, 3, b'o', b'n', b'e', 1, 44][..]));
    assert_eq!(parse_bundle(&bundle, 3).unwrap(), entries);
    assert_eq!(parse_bundle(&bundle, 2), Err(InvalidBundle::Width { found: 3, wanted: 2 }));
    assert_eq!(parse_bundle(&bundle, 4), Err(InvalidBundle::Width { found: 3, wanted: 4 }));
    for cut in 1..bundle.len() {
        assert!(parse_bundle(&bundle[..cut], 3).is_err(), "{cut}");
    }
    assert_eq!(encode_bundle([vec![0; 65_536].as_slice()]), Err(InvalidBundle::TooLong(65_536)));
}

#[test]
fn tiles_have_exactly_their_length() {
    let id = TileId { level: 0, index: 5, width: 2 };
    let hashes = [leaf_hash(b"a"), leaf_hash(b"b")];
    let bytes = encode_tile(&hashes);
    assert_eq!(parse_tile(id, &bytes).unwrap(), hashes);
    for wrong in [&bytes[..63], &bytes[..32], &[bytes.clone(), vec![0; 32]].concat()] {
        let error = parse_tile(id, wrong).unwrap_err().to_string();
        assert_eq!(error, format!("tile/0/005.p/2 is {} bytes long, not 64", wrong.len()));
    }
}

proptest! {
    /// Whatever grows a log, every subtree's hash is read from the tiles that are named for it, and from no others.
    #[test]
    fn every_subtree_is_in_the_tile_that_is_named(size in 1_u64..3000, begin in 0_u64..3000, end in 0_u64..3000) {
        let (mut tiles, mut edge) = (TileSet::new(), Range::empty(0));
        let mut known: Vec<(Node, Hash)> = Vec::new();
        for entry in 0..size {
            edge.append_hash(leaf_hash(&entry.to_be_bytes()), |node, hash| {
                known.push((node, hash));
                assert_eq!(tiles.store(node, hash).is_some(), node.level % 8 == 0);
            }).unwrap();
        }
        for tile in all_tiles(size) {
            prop_assert_eq!(tiles.get(tile.level, tile.index).unwrap().len(), usize::from(tile.width));
        }
        for (node, hash) in known.iter().filter(|(node, _)| node.begin().unwrap() >= begin || node.level > 6) {
            let mut one = TileSet::new();
            let tile = TileId::holding(*node, size).unwrap();
            one.insert(tile.level, tile.index, tiles.get(tile.level, tile.index).unwrap().to_vec());
            prop_assert_eq!(one.read(*node).unwrap(), *hash);
        }
        let wanted = tiles_of(&Node::cover(begin.min(size), end.min(size)), size);
        prop_assert!(wanted.is_sorted() && wanted.len() <= 8);
    }
}
