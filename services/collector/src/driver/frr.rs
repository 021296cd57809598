//! FRRouting: a login that lands in `vtysh`.

use tsujiban_core::driver::Driver;

use super::{About, Config, FetchError, whole};
use crate::shell::Shell;

/// Versions differ in which of these they know; neither prints anything that matters.
const PAGING_OFF: [&str; 2] = ["terminal length 0", "no terminal paginate"];
const SHOW_CONFIG: &str = "show running-config";

pub(super) async fn fetch(shell: &mut Shell) -> Result<(Config, About), FetchError> {
    for command in PAGING_OFF {
        shell.run(command).await?;
    }
    let about = about(&shell.run("show version").await?);
    let config = whole(Driver::Frr, SHOW_CONFIG, shell.run(SHOW_CONFIG).await?)?;
    Ok((config, about))
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
