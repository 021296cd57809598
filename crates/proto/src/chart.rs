//! What the chart has to know of the services: their rows, and the rights of staff that follow from the contracts. YAML for
//! charts/tsujiban/services.yaml.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use tsujiban_core::workload::{Service, Workload};

use crate::fields::Fields;
use crate::rules::{InvalidContract, Rules, STAFF_VERBS};

/// The verb on which staff need a right, beside that of the method, to see secrets.
pub const REVEAL: &str = "reveal";
/// The contract that every service serves. Staff work with groups at the first one alone.
const LIFECYCLE: &str = "lifecycle";

const HEAD: &str =
    "# Written by make generate from the table in crates/core/src/workload.rs and the contracts in proto/. Not to be edited.\n";

/// The file's text. `own` says which named templates a service has of its own, since Helm cannot ask whether one is there.
pub fn services(own: impl Fn(Service) -> Vec<String>) -> Result<String, InvalidContract> {
    let rules = Rules::load()?;
    let mut text = format!("{HEAD}services:\n");
    for service in Service::ALL.iter().copied() {
        // writing to a string cannot fail
        let _written = write_row(&mut text, service, &own(service));
    }
    text.push_str("functions:\n");
    for service in Service::ALL.iter().copied() {
        let _written = write_functions(&mut text, service, &rules);
    }
    Ok(text)
}

fn write_row(text: &mut String, service: Service, own: &[String]) -> std::fmt::Result {
    let row = service.row();
    let callers: Vec<_> = service.callers().into_iter().map(Workload::name).collect();
    writeln!(text, "- name: {}", row.name)?;
    writeln!(text, "  callers: [{}]", callers.join(", "))?;
    writeln!(text, "  database: {}", !row.database.is_empty())?;
    writeln!(text, "  spool: {}", service.has_spool())?;
    writeln!(text, "  optional: {}", row.absence.is_some())?;
    if let Some(port) = row.public_port {
        writeln!(text, "  publicPort: {port}")?;
    }
    writeln!(text, "  own: [{}]", own.join(", "))
}

fn write_functions(text: &mut String, service: Service, rules: &Rules) -> std::fmt::Result {
    let mut functions = BTreeMap::<&str, BTreeSet<&str>>::new();
    for (path, rule) in rules.iter().filter(|(path, _)| is_asked(service, path)) {
        if let Some(verb) = rule.staff_verb() {
            functions.entry(verb).or_default().insert(&rule.function);
            if rules.fields_of(path).and_then(Fields::revealing).is_some() {
                functions.entry(REVEAL).or_default().insert(&rule.function);
            }
        }
    }
    writeln!(text, "  {}:", service.row().name)?;
    for verb in STAFF_VERBS.iter().copied().chain([REVEAL]) {
        if let Some(functions) = functions.get(verb) {
            writeln!(text, "    {verb}: [{}]", functions.iter().copied().collect::<Vec<_>>().join(", "))?;
        }
    }
    Ok(())
}

/// Whether staff call a method at this service. The path is `/tsujiban.<contract>.v1.Service/Method`.
fn is_asked(service: Service, path: &str) -> bool {
    match path.strip_prefix("/tsujiban.").and_then(|path| path.split_once('.')) {
        Some((LIFECYCLE, _)) => service == Service::FIRST,
        Some((contract, _)) => contract == service.row().name,
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_and_rights_are_written() {
        let text = services(|_| vec!["check".to_owned()]).unwrap();
        let recorders = Service::ALL.iter().filter(|service| service.has_spool()).map(|service| service.row().name);
        let callers = std::iter::once("operator").chain(recorders).collect::<Vec<_>>().join(", ");
        assert!(text.contains(&format!(
            "- name: audit\n  callers: [{callers}]\n  database: true\n  spool: false\n  optional: true\n  own: [check]\n"
        )));
        assert!(text.contains("    reveal: [snapshots]\n") && text.contains("    erase: [groups]\n"), "{text}");
        assert_eq!(text.matches("groups").count(), 2, "staff work with groups at one service: {text}");
    }
}
