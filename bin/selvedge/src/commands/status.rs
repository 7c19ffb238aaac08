//! `selvedge status`: what is wanted, what is true, what failed, and from which commit.

use std::process::ExitCode;

use serde::Serialize;
use serde_json::Value;

use super::reconcile::{condition, list};
use crate::{
    api::Api,
    output::{Output, table},
};

/// One line of the status.
#[derive(Serialize)]
struct Line {
    kind: &'static str,
    namespace: String,
    name: String,
    /// What the object asks for.
    wanted: String,
    /// What is so.
    actual: String,
    /// `True`, `False` or `Unknown`.
    ready: String,
    /// Why not, empty when ready.
    message: String,
}

#[derive(Serialize)]
struct Status {
    ready: bool,
    lines: Vec<Line>,
}

type Describe = fn(&Value) -> (String, String);

const KINDS: [(&str, &str, Describe); 4] = [
    ("GitRepository", "gitrepositories", git_repository),
    ("Kustomization", "kustomizations", kustomization),
    ("HostConfiguration", "hostconfigurations", host_configuration),
    ("VirtualMachine", "virtualmachines", virtual_machine),
];

pub(crate) async fn run(api: &Api, output: Output) -> anyhow::Result<ExitCode> {
    let mut lines = Vec::new();
    for (kind, plural, describe) in KINDS {
        for object in list(api, plural).await? {
            lines.push(line(kind, &object, describe));
        }
    }
    let ready = lines.iter().all(|line| line.ready == "True");
    // A host works without its orchestrator: whether it is there is shown and does not count.
    if let Ok(orchestrator) = api.get("/selvedge/v1/orchestrator").await {
        lines.push(of_orchestrator(&orchestrator));
    }
    let status = Status { ready, lines };
    output.print(&status, || as_table(&status))?;
    Ok(if ready {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn line(kind: &'static str, object: &Value, describe: Describe) -> Line {
    let (wanted, actual) = describe(object);
    let ready = condition(&object["status"], "Ready");
    let text = |field: &str| {
        ready
            .and_then(|c| c[field].as_str())
            .unwrap_or_default()
            .to_owned()
    };
    let status = text("status");
    Line {
        kind,
        namespace: kinds::object::namespace(object).into(),
        name: kinds::object::name(object).into(),
        wanted,
        actual,
        message: if status == "True" {
            String::new()
        } else {
            [text("reason"), text("message")].join(": ")
        },
        ready: if status.is_empty() {
            "Unknown".into()
        } else {
            status
        },
    }
}

/// Where the host stands with its orchestrator.
fn of_orchestrator(value: &Value) -> Line {
    let state = text(&value["state"]);
    let about = value["message"]
        .as_str()
        .or(value["request"].as_str())
        .or(value["at"].as_str());
    Line {
        kind: "Orchestrator",
        namespace: String::new(),
        name: text(&value["url"]),
        wanted: format!("source: {}", text(&value["source"])),
        ready: if state == "connected" { "True" } else { "False" }.into(),
        actual: state,
        message: about.unwrap_or_default().into(),
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or("-").to_owned()
}

fn git_repository(object: &Value) -> (String, String) {
    let reference = &object["spec"]["ref"];
    let wanted = ["commit", "name", "semver", "tag", "branch"]
        .iter()
        .find_map(|f| reference[*f].as_str());
    let url = text(&object["spec"]["url"]);
    (
        format!("{url} {}", wanted.unwrap_or("master")),
        text(&object["status"]["artifact"]["revision"]),
    )
}

fn kustomization(object: &Value) -> (String, String) {
    let source = text(&object["spec"]["sourceRef"]["name"]);
    let path = object["spec"]["path"].as_str().unwrap_or("./");
    (
        format!("{source}:{path}"),
        text(&object["status"]["lastAppliedRevision"]),
    )
}

fn host_configuration(object: &Value) -> (String, String) {
    let compliant = condition(&object["status"], "Compliant").map_or("-", |c| match c["status"].as_str() {
        Some("True") => "compliant",
        Some("False") => "not compliant",
        _ => "-",
    });
    (text(&object["spec"]["layertype"]), compliant.into())
}

fn virtual_machine(object: &Value) -> (String, String) {
    let status = &object["status"];
    let address = status["vmIp"]
        .as_str()
        .map(|ip| format!(" {ip}"))
        .unwrap_or_default();
    let wanted = object["spec"]["powerState"]
        .as_str()
        .unwrap_or("poweredOn")
        .to_owned();
    (wanted, format!("{}{address}", text(&status["powerState"])))
}

fn as_table(status: &Status) -> String {
    let rows = status.lines.iter().map(|line| {
        let name = if line.namespace.is_empty() {
            line.name.clone()
        } else {
            format!("{}/{}", line.namespace, line.name)
        };
        vec![
            line.kind.to_owned(),
            name,
            line.wanted.clone(),
            line.actual.clone(),
            line.ready.clone(),
            line.message.clone(),
        ]
    });
    table(&["KIND", "NAME", "WANTED", "ACTUAL", "READY", "WHY NOT"], rows)
}
