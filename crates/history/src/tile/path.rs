use std::fmt;
use std::str::FromStr;

use super::{TileId, WIDTH};
use crate::decimal;

/// The part of a URL after the log's prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Path {
    Checkpoint,
    /// `tile/<L>/<N>[.p/<W>]`
    Tile(TileId),
    /// `tile/entries/<N>[.p/<W>]`
    Entries {
        index: u64,
        width: u16,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no path of a log")]
pub struct InvalidPath(String);

impl Path {
    /// The bundle with the entries whose hashes are in the tile of level 0 with the same number.
    pub fn entries(index: u64, size: u64) -> Option<Self> {
        TileId::of(0, index, size).map(|tile| Self::Entries { index, width: tile.width })
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (index, width) = match self {
            Self::Checkpoint => return f.write_str("checkpoint"),
            Self::Tile(tile) => {
                write!(f, "tile/{}/", tile.level)?;
                (tile.index, tile.width)
            }
            Self::Entries { index, width } => {
                f.write_str("tile/entries/")?;
                (*index, *width)
            }
        };
        let digits = index.to_string();
        let padded = digits.len().div_ceil(3) * 3;
        let digits = format!("{digits:0>padded$}");
        for (at, digit) in digits.chars().enumerate() {
            match (at, at % 3) {
                (0, _) if padded > 3 => f.write_str("x")?,
                (0, _) => (),
                (at, 0) if padded - at > 3 => f.write_str("/x")?,
                (_, 0) => f.write_str("/")?,
                _ => (),
            }
            write!(f, "{digit}")?;
        }
        if width == WIDTH { Ok(()) } else { write!(f, ".p/{width}") }
    }
}

impl FromStr for Path {
    type Err = InvalidPath;
    fn from_str(text: &str) -> Result<Self, InvalidPath> {
        parse(text).filter(|path| path.to_string() == text).ok_or_else(|| InvalidPath(text.chars().take(120).collect()))
    }
}

fn parse(text: &str) -> Option<Path> {
    if text == "checkpoint" {
        return Some(Path::Checkpoint);
    }
    let (level, rest) = text.strip_prefix("tile/")?.split_once('/')?;
    let (index, width) = match rest.split_once(".p/") {
        None => (rest, WIDTH),
        Some((index, width)) => (index, u16::try_from(decimal::parse(width)?).ok().filter(|width| (1..WIDTH).contains(width))?),
    };
    // the caller rejects every text that Display does not write
    let index = index.chars().filter(char::is_ascii_digit).collect::<String>().parse().ok()?;
    if level == "entries" {
        return Some(Path::Entries { index, width });
    }
    let level = u8::try_from(decimal::parse(level)?).ok().filter(|level| *level <= 63)?;
    Some(Path::Tile(TileId { level, index, width }))
}
