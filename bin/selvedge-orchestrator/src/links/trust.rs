//! Which certificates let a host in: the tenants' authorities, and what was revoked.

use identity::verify::Revocations;

use crate::app::App;

/// Reads both from the database.
pub(crate) async fn refresh(app: &App) -> Result<(), fleet::Error> {
    let authorities = app.fleet.tenants().authorities().await?;
    if let Err(error) = app.verifier.set_authorities(
        authorities
            .iter()
            .map(|(tenant, pem)| (tenant.as_str(), pem.as_str())),
    ) {
        tracing::error!(error = %telemetry::chain(&error), "an authority can't be used: its hosts stay out");
    }
    let hosts = app.fleet.hosts().revoked().await?;
    app.verifier.set_revocations(Revocations {
        hosts: hosts.into_iter().map(|(_, host)| host).collect(),
        ..Revocations::default()
    });
    Ok(())
}
