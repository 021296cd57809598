//! Writes what the chart has to know of the services (`services charts/tsujiban`), or checks that it is there (`services --check charts/tsujiban`).

use std::error::Error;
use std::path::Path;
use std::{env, fs};

use tsujiban_core::workload::Service;
use tsujiban_proto::chart;

/// The named templates of a service that the chart asks for.
const ASKED: [&str; 2] = ["arguments", "check"];

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let (folder, is_check) = match arguments.as_slice() {
        [flag, folder] if flag == "--check" => (Path::new(folder), true),
        [folder] => (Path::new(folder), false),
        _ => return Err("usage: services [--check] CHART".into()),
    };
    let file = folder.join("services.yaml");
    let text = chart::services(|service| own(folder, service))?;
    if !is_check {
        fs::write(file, text)?;
    } else if fs::read_to_string(&file)? != text {
        return Err(format!("{} is not what the table of services and the contracts say; run `make generate`", file.display()).into());
    }
    Ok(())
}

/// Which templates the service's own file has; without a file, none.
fn own(chart: &Path, service: Service) -> Vec<String> {
    let name = service.row().name;
    let templates = fs::read_to_string(chart.join(format!("templates/_{name}.tpl"))).unwrap_or_default();
    ASKED.iter().filter(|asked| templates.contains(&format!("define \"tsujiban.{name}.{asked}\""))).map(ToString::to_string).collect()
}
