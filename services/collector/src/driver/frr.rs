//! FRRouting: a login that lands in `vtysh`.

use tsujiban_core::driver::Driver;

use super::{About, Config, FetchError, whole};
use crate::shell::Shell;

/// The first two turn paging off. Versions differ in which of them they know; neither prints anything that matters.
const COMMANDS: [&str; 4] = ["terminal length 0", "no terminal paginate", "show version", SHOW_CONFIG];
const SHOW_CONFIG: &str = "show running-config";

pub(super) async fn fetch(shell: &mut Shell) -> Result<(Config, About), FetchError> {
    let [_, _, version, config] = shell.run(COMMANDS, |sent| Driver::Frr.is_at_end(sent)).await?;
    let config = whole(Driver::Frr, SHOW_CONFIG, config)?;
    Ok((config, about(&version)))
}

/// From a first line such as `FRRouting 8.4.4 (tokyo-1) on Linux(6.1.0).`
fn about(version: &[u8]) -> About {
    let text = String::from_utf8_lossy(version);
    let mut words = text.lines().find(|line| line.starts_with("FRRouting ")).unwrap_or_default().split_whitespace();
    match (words.next(), words.next()) {
        (Some(model), Some(firmware)) => About { model: model.to_owned(), firmware: firmware.chars().take(64).collect() },
        _ => About::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read() {
        let about_8 = about(b"FRRouting 8.4.4 (tokyo-1) on Linux(6.1.0).\r\nCopyright 1996-2005 Kunihiro Ishiguro, et al.\r\n");
        assert_eq!(about_8, About { model: "FRRouting".into(), firmware: "8.4.4".into() });
        assert_eq!(about(b"% Unknown command: show version\r\n"), About::default());
    }
}
