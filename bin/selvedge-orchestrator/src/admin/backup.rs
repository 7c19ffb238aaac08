//! `backup` and `restore`.

use std::{fs::OpenOptions, os::unix::fs::OpenOptionsExt, path::Path};

use anyhow::{Context, bail};
use fleet::db::backup;
use telemetry::Clock;
use tokio::io::{AsyncWriteExt, BufReader, BufWriter};

use crate::{app, config::Config, files};

/// Writes a backup; a crash leaves none, not half of one.
pub(super) async fn backup(config: &Config, clock: &Clock, file: &Path) -> anyhow::Result<()> {
    if file.exists() {
        bail!("{} is there already", file.display());
    }
    let fleet = app::open_fleet(config, clock).await?;
    let failed = || format!("can't write {}", file.display());
    let partial = file.with_extension("partial");
    let out = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&partial)
        .with_context(failed)?;
    let mut out = BufWriter::new(tokio::fs::File::from_std(out));
    let rows = backup::write(fleet.db(), &mut out)
        .await
        .context("the backup failed")?;
    out.flush().await.with_context(failed)?;
    out.get_ref().sync_all().await.with_context(failed)?;
    tokio::fs::rename(&partial, file).await.with_context(failed)?;
    let data = &config.server.data;
    println!(
        "{} holds the database ({rows} rows), its secrets sealed. Keep {} elsewhere, and copy {} and {} too",
        file.display(),
        data.join("master.key").display(),
        data.join("ca.key").display(),
        data.join("git").display(),
    );
    Ok(())
}

/// Reads a backup into the database.
pub(super) async fn restore(config: &Config, clock: &Clock, file: &Path) -> anyhow::Result<()> {
    let input = tokio::fs::File::open(file)
        .await
        .with_context(|| format!("can't read {}", file.display()))?;
    // Without the key the restored secrets would stay sealed: better to know before.
    app::master_keys(config)?;
    let url = config.database_url()?;
    // A process that runs would go on in the database that is put aside, and all that it keeps would be lost.
    let _alone = files::hold(&config.server.data, true).context("stop the orchestrator first")?;
    if let Some(path) = url.strip_prefix("sqlite:") {
        put_aside(Path::new(path), clock)?;
    }
    let rows = backup::restore(&url, clock, &mut BufReader::new(input))
        .await
        .context("the restore failed")?;
    println!(
        "restored {rows} rows. Rollouts are halted until somebody resumes them; hosts that know newer assignments keep them"
    );
    Ok(())
}

/// Moves a SQLite database out of the way, under a name that says when.
fn put_aside(path: &Path, clock: &Clock) -> anyhow::Result<()> {
    if !path.exists() {
        return Ok(());
    }
    let mark = clock.now().strftime("%Y%m%dT%H%M%SZ").to_string();
    for end in ["", "-wal", "-shm"] {
        let from = format!("{}{end}", path.display());
        if Path::new(&from).exists() {
            let to = format!("{}.before-{mark}{end}", path.display());
            std::fs::rename(&from, &to).with_context(|| format!("can't move {from} to {to}"))?;
        }
    }
    Ok(())
}
