use super::*;

fn column(name: &str, kind: &str, path: &str) -> Column {
    Column {
        name: name.into(),
        kind: kind.into(),
        format: String::new(),
        description: String::new(),
        priority: 0,
        json_path: path.into(),
        computed: None,
    }
}

fn columns(columns: Vec<Column>) -> Columns {
    Columns::of(&VersionDef {
        name: "v1".into(),
        schema: Value::Null,
        columns,
    })
}

fn row(columns: &Columns, include: IncludeObject) -> Value {
    let raw = br#"{"apiVersion":"example.com/v1","kind":"Thing","metadata":{"name":"a","creationTimestamp":"2026-01-01T00:00:00Z"},
        "spec":{"n":3,"on":true,"ips":["10.0.0.1","10.0.0.2"],"map":{"k":1}}}"#;
    let mut out = Vec::new();
    columns
        .write_row(&mut out, raw, include, "2026-01-03T01:00:00Z".parse().unwrap())
        .unwrap();
    serde_json::from_slice(&out).unwrap()
}

#[test]
fn cells_have_the_type_of_their_column() {
    let columns = columns(vec![
        column("N", "integer", ".spec.n"),
        column("On", "boolean", ".spec.on"),
        column("First", "string", ".spec.ips[*]"),
        column("Absent", "string", ".spec.absent"),
        column("Age", "date", ".metadata.creationTimestamp"),
    ]);
    let cells = json!(["a", 3, true, "10.0.0.1", null, "2d1h"]);
    assert_eq!(row(&columns, IncludeObject::None), json!({"cells": cells}));
}

#[test]
fn rows_carry_what_was_asked_for() {
    let columns = columns(vec![]);
    let partial = json!({
        "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata",
        "metadata": {"name": "a", "creationTimestamp": "2026-01-01T00:00:00Z"},
    });
    assert_eq!(
        row(&columns, IncludeObject::Metadata),
        json!({"cells": ["a", "2d1h"], "object": partial})
    );
    assert_eq!(row(&columns, IncludeObject::Object)["object"]["spec"]["n"], 3);
    assert_eq!(columns.definitions()[1]["name"], "Age");
}
