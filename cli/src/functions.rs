//! `tsujiban functions`: what can be done, by whom, and how it is recorded. Contacts no service.

use serde::Serialize;
use tsujiban_proto::access::v1::{History, Operation};
use tsujiban_proto::functions::{self, Function, Language};
use tsujiban_proto::rules::InvalidContract;

use crate::exit::ExitCode;
use crate::failure::Failure;
use crate::output::{Align, Answer, Format, Table};

/// How a call is recorded that does not happen unless its intent is in the history.
const STRICT: &str = "strict";
/// The right that a call needs, beside that of its method, to show secrets.
const REVEAL: &str = "reveal";

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct FunctionView {
    function: String,
    title: String,
    operations: Vec<OperationView>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct OperationView {
    operation: &'static str,
    title: &'static str,
    methods: Vec<MethodView>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct MethodView {
    method: String,
    staff_verb: Option<String>,
    workloads: Vec<String>,
    history: &'static str,
    /// The field by which a call reveals secrets. Such a call is recorded strictly, and needs the right to reveal as well.
    reveals: Option<String>,
}

impl ExitCode for InvalidContract {}

/// Prints the catalogue of functions.
pub fn list(language: Language, format: Format) -> Result<Answer, Failure> {
    let catalogue: Vec<_> = functions::catalogue()?.into_iter().map(|function| view(function, language)).collect();
    Ok(Answer::new(format, &catalogue, |catalogue| table(catalogue))?)
}

fn table(catalogue: &[FunctionView]) -> String {
    let mut table = Table::new(["FUNCTION", "TITLE", "OPERATION", "METHOD", "STAFF", "HISTORY"].map(|title| (title, Align::Left)));
    for function in catalogue {
        for operation in &function.operations {
            for method in &operation.methods {
                let name = method.method.rsplit('/').next().unwrap_or_default().to_owned();
                let verb = method.staff_verb.clone().unwrap_or_default();
                let operation = operation.title.to_owned();
                // a second line, since a call that reveals secrets needs another right and is recorded in another way
                if let Some(field) = &method.reveals {
                    let (name, verb) = (format!("{name} ({field})"), format!("{verb}, {REVEAL}"));
                    table.row([function.function.clone(), function.title.clone(), operation.clone(), name, verb, STRICT.to_owned()]);
                }
                table.row([function.function.clone(), function.title.clone(), operation, name, verb, method.history.to_owned()]);
            }
        }
    }
    table.render()
}

fn view(function: Function, language: Language) -> FunctionView {
    let title = function.title(language).to_owned();
    let operations = function.operations.into_iter().map(|(operation, methods)| OperationView {
        operation: Operation::word(operation),
        title: operation.title(language),
        methods: methods
            .into_iter()
            .map(|method| MethodView {
                method: method.name,
                staff_verb: method.staff_verb,
                workloads: method.workloads.iter().map(|workload| short(workload.as_str_name())).collect(),
                reveals: method.reveals,
                history: match method.history {
                    History::Strict => STRICT,
                    History::Spooled => "spooled",
                    History::Read => "read",
                    History::None | History::Unspecified => "none",
                },
            })
            .collect(),
    });
    FunctionView { operations: operations.collect(), function: function.name, title }
}

fn short(workload: &str) -> String {
    workload.trim_start_matches("WORKLOAD_").to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_read_their_own_language() {
        let english = list(Language::English, Format::Table).unwrap().text;
        let line = english.lines().find(|line| line.contains("PutSnapshot")).unwrap();
        assert_eq!(
            line.split_whitespace().collect::<Vec<_>>().join(" "),
            "snapshots Snapshots of device configs Create PutSnapshot - spooled"
        );
        let get: Vec<_> = english.lines().filter(|line| line.contains("GetSnapshot")).collect();
        let [revealing, hiding] = get.as_slice() else { panic!("{english}") };
        assert!(
            revealing.contains("GetSnapshot (reveal)") && revealing.contains("get, reveal") && revealing.ends_with("strict"),
            "{english}"
        );
        assert!(hiding.ends_with("read"), "{english}");
        let japanese = list(Language::Japanese, Format::Table).unwrap().text;
        assert!(japanese.contains("操作履歴"), "{japanese}");
        assert_eq!(english.lines().count(), japanese.lines().count());
    }

    #[test]
    fn programs_read_the_same_words_in_every_language() {
        let json = list(Language::Japanese, Format::Json).unwrap().text;
        let catalogue: serde_json::Value = serde_json::from_str(&json).unwrap();
        let groups = catalogue.as_array().unwrap().iter().find(|function| function["function"] == "groups").unwrap();
        let delete = groups["operations"].as_array().unwrap().iter().find(|operation| operation["operation"] == "delete").unwrap();
        assert_eq!(delete["title"], "削除");
        assert_eq!(delete["methods"][0]["staffVerb"], "erase");
        assert_eq!(delete["methods"][0]["workloads"][0], "operator");
        assert_eq!(delete["methods"][0]["history"], "strict");
        assert!(delete["methods"][0]["reveals"].is_null());
        let snapshots = catalogue.as_array().unwrap().iter().find(|function| function["function"] == "snapshots").unwrap();
        let view = snapshots["operations"].as_array().unwrap().iter().find(|operation| operation["operation"] == "view").unwrap();
        let get = view["methods"].as_array().unwrap().iter().find(|m| m["method"].as_str().unwrap().ends_with("GetSnapshot")).unwrap();
        assert_eq!((get["history"].as_str(), get["reveals"].as_str()), (Some("read"), Some("reveal")));
    }
}
