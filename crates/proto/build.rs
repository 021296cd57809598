//! Compiles the contracts under `proto/`, and keeps their descriptors with all options for the access layer.

use std::error::Error;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::{env, fs};

fn main() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("../../proto");
    println!("cargo:rerun-if-changed={}", root.display());
    let folders = fs::read_dir(root.join("tsujiban"))?.collect::<Result<Vec<_>, _>>()?;
    let mut names: Vec<String> = folders.iter().map(|folder| folder.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    let files = names.iter().map(|name| root.join(format!("tsujiban/{name}/v1/{name}.proto")));
    let mut compiler = protox::Compiler::new([&root])?;
    compiler.include_imports(true).open_files(files)?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    // the compiler's own encoding keeps the method options; prost's types would drop them
    fs::write(out.join("descriptors.bin"), compiler.encode_file_descriptor_set())?;
    tonic_prost_build::configure().compile_fds(compiler.file_descriptor_set())?;
    let mut modules = String::new();
    for name in names {
        writeln!(modules, "pub mod {name} {{ pub mod v1 {{ tonic::include_proto!(\"tsujiban.{name}.v1\"); }} }}")?;
    }
    fs::write(out.join("contracts.rs"), modules)?;
    Ok(())
}
