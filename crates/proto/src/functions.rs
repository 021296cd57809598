//! The catalogue of functions: what can be done with each, and by which methods. Generated from the contracts, so that it is never old.

mod texts;

use std::collections::BTreeMap;

use crate::access::v1::{History, Operation, Workload};
use crate::fields::Fields;
use crate::rules::{InvalidContract, Rules};

/// A language of people.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Language {
    #[default]
    English,
    Japanese,
}

/// A function, such as `snapshots`: what roles give and the operation history names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Function {
    pub name: String,
    /// By operation, in the order of their numbers.
    pub operations: BTreeMap<Operation, Vec<Method>>,
}

/// A method that does an operation on a function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Method {
    /// Such as `tsujiban.backup.v1.BackupService/ListSnapshots`.
    pub name: String,
    /// The right of staff, such as `list`; `None` when they never call it.
    pub staff_verb: Option<String>,
    pub workloads: Vec<Workload>,
    pub history: History,
    /// The field by which its calls reveal secrets, such as `reveal`; `None` when they never do.
    pub reveals: Option<String>,
}

/// All functions, by name.
pub fn catalogue() -> Result<Vec<Function>, InvalidContract> {
    let mut functions = BTreeMap::<String, Function>::new();
    let rules = Rules::load()?;
    for (path, rule) in rules.iter() {
        let method = Method {
            name: path.trim_start_matches('/').to_owned(),
            staff_verb: rule.staff_verb().map(str::to_owned),
            workloads: rule.workloads().collect(),
            history: rule.history(),
            reveals: rules.fields_of(path).and_then(Fields::revealing).map(str::to_owned),
        };
        let function =
            functions.entry(rule.function.clone()).or_insert_with(|| Function { name: rule.function.clone(), operations: BTreeMap::new() });
        function.operations.entry(rule.operation()).or_default().push(method);
    }
    Ok(functions.into_values().collect())
}

impl Function {
    /// What people call it.
    pub fn title(&self, language: Language) -> &str {
        texts::function(&self.name, language).unwrap_or(&self.name)
    }
}

impl Operation {
    /// What people call it.
    pub fn title(self, language: Language) -> &'static str {
        texts::operation(self, language).unwrap_or_else(|| self.word())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_catalogue_names_each_method_once() {
        let catalogue = catalogue().unwrap();
        let methods: Vec<_> = catalogue.iter().flat_map(|function| function.operations.values().flatten()).map(|m| &m.name).collect();
        assert_eq!(methods.len(), Rules::load().unwrap().iter().count());
        let groups = catalogue.iter().find(|function| function.name == "groups").unwrap();
        let erase = &groups.operations[&Operation::Delete];
        assert_eq!(erase.iter().map(|method| method.name.as_str()).collect::<Vec<_>>(), ["tsujiban.lifecycle.v1.LifecycleService/Erase"]);
        assert_eq!(groups.operations.keys().next(), Some(&Operation::View), "in the order of their numbers");
    }

    /// Every text that people read exists in both languages, and none is left over.
    #[test]
    fn every_function_and_operation_has_its_texts() {
        let catalogue = catalogue().unwrap();
        let names: Vec<_> = catalogue.iter().map(|function| function.name.as_str()).collect();
        let mut known: Vec<_> = texts::functions().map(|function| function.name).collect();
        known.sort_unstable();
        assert_eq!(known, names, "the rows of services name each function once");
        for language in [Language::English, Language::Japanese] {
            for function in &catalogue {
                assert!(texts::function(&function.name, language).is_some_and(|text| !text.is_empty()), "{language:?} {}", function.name);
            }
            for operation in (1..).map_while(|number| Operation::try_from(number).ok()) {
                assert!(texts::operation(operation, language).is_some_and(|text| !text.is_empty()), "{language:?} {operation:?}");
                assert!(!operation.word().is_empty(), "{operation:?}");
            }
        }
        assert!(names.iter().all(|name| texts::function(name, Language::Japanese) != texts::function(name, Language::English)));
    }
}
