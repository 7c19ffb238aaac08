//! `selvedge version`.

use std::process::ExitCode;

use serde_json::json;

use crate::{api::Api, output::Output};

pub(crate) async fn run(api: Option<&Api>, output: Output) -> anyhow::Result<ExitCode> {
    let host = match api {
        Some(api) => api.get("/version").await.ok(),
        None => None,
    };
    let host = host.map(|v| v["gitVersion"].as_str().unwrap_or_default().to_owned());
    let client = env!("CARGO_PKG_VERSION");
    output.print(&json!({"client": client, "host": host}), || {
        format!(
            "client: {client}\nhost:   {}",
            host.as_deref().unwrap_or("does not answer")
        )
    })?;
    Ok(ExitCode::SUCCESS)
}
