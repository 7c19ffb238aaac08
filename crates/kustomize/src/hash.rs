//! The hash at the end of a generated name, the same that kustomize computes: ten characters of the SHA-256
//! of the content, without those that could spell words.

use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

/// The hash of a ConfigMap or Secret.
pub(crate) fn of(object: &Value) -> String {
    let field = |name: &str| {
        object
            .get(name)
            .cloned()
            .unwrap_or_else(|| Value::String(String::new()))
    };
    let mut content = Map::new();
    content.insert("kind".into(), field("kind"));
    // The name is not part of it, so that copies of one base get one hash.
    content.insert("name".into(), Value::String(String::new()));
    content.insert("data".into(), field("data"));
    let secret = kinds::object::kind(object) == "Secret";
    if secret {
        content.insert("type".into(), field("type"));
    }
    let more = if secret { "stringData" } else { "binaryData" };
    if let Some(data @ Value::Object(_)) = object.get(more) {
        content.insert(more.into(), data.clone());
    }
    let mut sorted = json!(content);
    sorted.sort_all_objects();
    let text = go_json(&sorted.to_string());
    let digest = Sha256::digest(text.as_bytes());
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    hex.chars()
        .take(10)
        .map(|c| match c {
            '0' => 'g',
            '1' => 'h',
            '3' => 'k',
            'a' => 'm',
            'e' => 't',
            other => other,
        })
        .collect()
}

/// JSON as Go's encoder writes it: `<`, `>`, `&` and two line separators are escaped. None of them can stand
/// outside a string.
fn go_json(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => out.push_str("\\u003c"),
            '>' => out.push_str("\\u003e"),
            '&' => out.push_str("\\u0026"),
            '\u{2028}' => out.push_str("\\u2028"),
            '\u{2029}' => out.push_str("\\u2029"),
            other => out.push(other),
        }
    }
    out
}
