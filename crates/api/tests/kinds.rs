//! What people write in manifests, and what is stored in them, keeps its names.

use serde_json::Value;

/// Every field of every kind, by its path. A line that changes or goes breaks manifests of before; a new one is accepted with
/// `cargo insta accept`.
#[test]
fn kinds_keep_the_names_of_their_fields() {
    let mut lines = Vec::new();
    for (_, crd) in tsujiban_api::crds().unwrap() {
        let crd = serde_json::to_value(&crd).unwrap();
        let names = &crd["spec"]["names"];
        for version in crd["spec"]["versions"].as_array().unwrap() {
            let kind = format!(
                "{}.{}/{}",
                names["kind"].as_str().unwrap(),
                crd["spec"]["group"].as_str().unwrap(),
                version["name"].as_str().unwrap()
            );
            lines.push(format!("{kind}: plural {}, short {}", names["plural"], names["shortNames"]));
            paths(&kind, &version["schema"]["openAPIV3Schema"], &mut lines);
        }
    }
    insta::assert_snapshot!("kinds", lines.join("\n"));
}

fn paths(path: &str, schema: &Value, lines: &mut Vec<String>) {
    if let Some(values) = schema["enum"].as_array() {
        lines.push(format!("{path}: one of {}", values.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")));
    }
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path} {name}");
        lines.push(path.clone());
        paths(&path, field, lines);
    }
    if schema["items"].is_object() {
        paths(&format!("{path}[]"), &schema["items"], lines);
    }
}
