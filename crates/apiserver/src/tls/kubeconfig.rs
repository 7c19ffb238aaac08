//! Kubeconfigs with everything inside, as people copy them to their own machine.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::json;

use super::issue::Issued;

/// A kubeconfig of one user of one cluster. JSON is YAML: kubectl reads either.
pub(super) fn render(cluster: &str, server: &str, ca_pem: &str, user: &str, issued: &Issued) -> String {
    let context = format!("{user}@{cluster}");
    let quote = |text: &str| json!(text).to_string();
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: {context}\nclusters:\n- name: {cluster}\n  cluster:\n    server: {server}\n    \
         certificate-authority-data: {ca}\nusers:\n- name: {user}\n  user:\n    client-certificate-data: {certificate}\n    \
         client-key-data: {key}\ncontexts:\n- name: {context}\n  context:\n    cluster: {cluster}\n    user: {user}\n    \
         namespace: default\n",
        context = quote(&context),
        cluster = quote(cluster),
        server = quote(server),
        user = quote(user),
        ca = STANDARD.encode(ca_pem),
        certificate = STANDARD.encode(issued.certificate_pem()),
        key = STANDARD.encode(issued.key_pem()),
    )
}
