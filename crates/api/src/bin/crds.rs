//! Writes the CRDs into the folder that is given: `cargo run -p tsujiban-api --bin crds -- crds`.

use std::path::PathBuf;
use std::{env, error::Error, fs};

fn main() -> Result<(), Box<dyn Error>> {
    let folder = PathBuf::from(env::args().nth(1).ok_or("usage: crds FOLDER")?);
    for (file, crd) in tsujiban_api::crds() {
        fs::write(folder.join(file), serde_saphyr::to_string(&crd)?)?;
    }
    Ok(())
}
