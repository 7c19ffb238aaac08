//! `selvedge get`.

use std::process::ExitCode;

use serde_json::Value;

use crate::{
    api::Api,
    output::{Output, table},
};

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  selvedge get vm -A\n  selvedge get hostconfigurations -n esx-system -o yaml\n  selvedge get vm till -n shop -o json"
)]
pub(crate) struct Args {
    /// A kind: plural, singular, short name, or kind.group.
    kind: String,
    /// One object.
    name: Option<String>,
    /// The namespace to look in.
    #[arg(short, long, default_value = "default")]
    namespace: String,
    /// All namespaces.
    #[arg(short = 'A', long)]
    all_namespaces: bool,
}

const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

pub(crate) async fn run(api: &Api, args: &Args, output: Output) -> anyhow::Result<ExitCode> {
    let resource = api.resource(&args.kind).await?;
    let everywhere = args.all_namespaces && args.name.is_none();
    let namespace = (!everywhere).then_some(args.namespace.as_str());
    let path = resource.path(namespace, args.name.as_deref());
    let accept = if output == Output::Table {
        TABLE
    } else {
        "application/json"
    };
    let value = api.get_as(&path, accept).await?;
    output.print(&value, || as_table(&value, resource.namespaced && everywhere))?;
    Ok(ExitCode::SUCCESS)
}

/// Prints a `meta.k8s.io/v1` Table as kubectl does without `-o wide`.
fn as_table(value: &Value, with_namespace: bool) -> String {
    let columns: Vec<(usize, &Value)> = value["columnDefinitions"]
        .as_array()
        .into_iter()
        .flatten()
        .enumerate()
        .filter(|(_, column)| column["priority"].as_i64().unwrap_or(0) == 0)
        .collect();
    let mut header: Vec<String> = columns
        .iter()
        .map(|(_, column)| column["name"].as_str().unwrap_or_default().to_uppercase())
        .collect();
    if with_namespace {
        header.insert(0, "NAMESPACE".into());
    }
    let rows: Vec<Vec<String>> = value["rows"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|row| {
            let mut cells: Vec<String> = columns
                .iter()
                .map(|(index, _)| cell(&row["cells"][*index]))
                .collect();
            if with_namespace {
                cells.insert(
                    0,
                    row["object"]["metadata"]["namespace"]
                        .as_str()
                        .unwrap_or_default()
                        .into(),
                );
            }
            cells
        })
        .collect();
    if rows.is_empty() {
        return "nothing found".into();
    }
    table(&header.iter().map(String::as_str).collect::<Vec<_>>(), rows)
}

fn cell(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "<none>".into(),
        other => other.to_string(),
    }
}
