//! The reference of the kinds as Markdown, made from the same data that the host serves.

use std::fmt::Write as _;

use serde_json::Value;

use crate::registry::{KindDef, Registry, Scope};

/// One page for all kinds and the host profile.
#[must_use]
pub fn markdown(registry: &Registry) -> String {
    let mut page = String::from(
        "# Kinds\n\nMade from `crates/kinds/data` by `cargo run -p kinds --example reference`.\n",
    );
    for kind in registry.iter() {
        section(&mut page, kind);
    }
    page += "\n## The host profile\n\nWhat is inside `spec.profile` of a HostConfiguration. What is not named here is accepted and kept.\n\n";
    table(&mut page, crate::host::schema(), &[]);
    page
}

fn section(page: &mut String, kind: &KindDef) {
    let group = if kind.group.is_empty() {
        String::new()
    } else {
        format!("{}/", kind.group)
    };
    let versions: Vec<String> = kind
        .versions
        .iter()
        .map(|v| format!("`{group}{}`", v.name))
        .collect();
    let mut names = vec![kind.plural.clone(), kind.singular.clone()];
    names.extend(kind.short_names.iter().cloned());
    let scope = match kind.scope {
        Scope::Namespaced => "in a namespace",
        Scope::Cluster => "on the host as a whole",
    };
    let Some(version) = kind.version(&kind.storage_version) else {
        return;
    };
    let about = version
        .schema
        .get("description")
        .and_then(Value::as_str)
        .unwrap_or_default();
    // Writing to a String can't fail.
    let _ = write!(
        page,
        "\n## {} ({group}{})\n\n{}\n\nAPI versions {}; names {}; lives {scope}.\n\n",
        kind.kind,
        kind.storage_version,
        about.trim(),
        versions.join(", "),
        names.join(", "),
    );
    table(page, &version.schema, &["apiVersion", "kind", "metadata"]);
}

fn table(page: &mut String, schema: &Value, without: &[&str]) {
    *page += "| Field | Type | | |\n|---|---|---|---|\n";
    rows(page, schema, "", without);
}

fn rows(page: &mut String, schema: &Value, path: &str, without: &[&str]) {
    let required: Vec<&str> = schema
        .get("required")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    for (name, field) in schema
        .get("properties")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        if without.contains(&name.as_str()) {
            continue;
        }
        let path = crate::host::field_path(path, name);
        let mut about = field
            .get("description")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .trim()
            .replace('|', "\\|");
        if let Some(default) = field.get("default") {
            let _ = write!(about, " Default `{default}`.");
        }
        for (bound, word) in [
            ("minimum", "At least"),
            ("maximum", "At most"),
            ("maxItems", "At most"),
        ] {
            if let Some(value) = field.get(bound) {
                let _ = write!(about, " {word} {value}.");
            }
        }
        let must = if required.contains(&name.as_str()) {
            "required"
        } else {
            ""
        };
        let _ = writeln!(page, "| `{path}` | {} | {must} | {about} |", kind_of(field));
        let inner = [(field.get("items"), "[]"), (Some(field), "")];
        if let Some((schema, suffix)) = inner
            .into_iter()
            .find_map(|(schema, suffix)| Some((schema?, suffix)))
        {
            rows(page, schema, &format!("{path}{suffix}"), &[]);
        }
    }
}

fn kind_of(field: &Value) -> String {
    if let Some(values) = field.get("enum").and_then(Value::as_array) {
        return values
            .iter()
            .map(|v| format!("`{}`", v.as_str().unwrap_or_default()))
            .collect::<Vec<_>>()
            .join(", ");
    }
    if field.get("x-kubernetes-int-or-string").is_some() {
        return if field.get("format").is_some() {
            "quantity".into()
        } else {
            "number or text".into()
        };
    }
    match field.get("type").and_then(Value::as_str) {
        Some("array") => format!(
            "list of {}",
            field.get("items").map_or_else(|| "anything".into(), kind_of)
        ),
        Some("object") => match field.get("additionalProperties") {
            Some(values) => format!("map to {}", kind_of(values)),
            None => "object".into(),
        },
        Some("string") => match field.get("format").and_then(Value::as_str) {
            Some("date-time") => "time".into(),
            Some("go-duration") => "time span".into(),
            Some("byte") => "base64".into(),
            _ => "text".into(),
        },
        Some("boolean") => "true or false".into(),
        Some("integer") => "whole number".into(),
        Some(other) => other.into(),
        None => "anything".into(),
    }
}
