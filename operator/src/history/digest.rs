use ring::digest::SHA256;
use serde::Serialize;
use serde_json::Value;

/// The SHA-256 of a spec's canonical JSON: keys in order, no spaces. It distinguishes two specs without revealing what is in them.
pub fn digest(spec: &impl Serialize) -> Result<String, serde_json::Error> {
    let mut text = String::new();
    canonical(&serde_json::to_value(spec)?, &mut text);
    Ok(hex::encode(ring::digest::digest(&SHA256, text.as_bytes())))
}

/// The order of an object's keys must not depend on how a map is built.
fn canonical(value: &Value, text: &mut String) {
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_by(|one, other| one.0.cmp(other.0));
            text.push('{');
            for (i, (key, value)) in fields.into_iter().enumerate() {
                if i > 0 {
                    text.push(',');
                }
                text.push_str(&Value::String(key.clone()).to_string());
                text.push(':');
                canonical(value, text);
            }
            text.push('}');
        }
        Value::Array(items) => {
            text.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    text.push(',');
                }
                canonical(item, text);
            }
            text.push(']');
        }
        plain => text.push_str(&plain.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_order_of_keys_does_not_matter_and_everything_else_does() {
        let mut text = String::new();
        canonical(&json!({"b": [1, {"d": null, "c": "\"\n"}], "a": true}), &mut text);
        assert_eq!(text, r#"{"a":true,"b":[1,{"c":"\"\n","d":null}]}"#);
        let of = |value: Value| digest(&value).unwrap();
        assert_eq!(of(json!({"a": 1, "b": 2})), of(json!({"b": 2, "a": 1})));
        assert_ne!(of(json!({"a": [1, 2]})), of(json!({"a": [2, 1]})));
        // of `{}`, by sha256sum
        assert_eq!(of(json!({})), "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a");
    }
}
