//! Writes the CRDs into a folder (`crds crds/`), or checks that they are there as they should be (`crds --check crds/`).

use std::error::Error;
use std::path::Path;
use std::{env, fs};

type Outcome = Result<(), Box<dyn Error>>;

fn main() -> Outcome {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match arguments.as_slice() {
        [flag, folder] if flag == "--check" => each_file(folder.as_ref(), check),
        [folder] => each_file(folder.as_ref(), |path, yaml| Ok(fs::write(path, yaml)?)),
        _ => Err("usage: crds [--check] FOLDER".into()),
    }
}

fn each_file(folder: &Path, act: fn(&Path, &str) -> Outcome) -> Outcome {
    for (file, crd) in tsujiban_api::crds()? {
        act(&folder.join(file), &serde_saphyr::to_string(&crd)?)?;
    }
    Ok(())
}

fn check(path: &Path, yaml: &str) -> Outcome {
    if fs::read_to_string(path)? == yaml {
        Ok(())
    } else {
        Err(format!("{} is not what the types say; run `make generate`", path.display()).into())
    }
}
