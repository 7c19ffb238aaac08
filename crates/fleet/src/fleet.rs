use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use identity::ca::Authority;
use identity::seal::{Binding, MasterKeys};
use telemetry::Clock;
use tokio::sync::Semaphore;

use crate::Error;
use crate::db::Db;

/// What can be set.
#[derive(Clone, Debug)]
pub struct Options {
    /// What a password check costs.
    pub passwords: PasswordCost,
    /// How long a host's certificate is good.
    pub certificate: Duration,
    /// How long a sign-in lasts.
    pub session: Duration,
    /// How often hosts beat: stale after two missed, offline after four.
    pub heartbeat: Duration,
    /// How long points of five minutes are kept,
    pub usage_fine: Duration,
    /// and points of an hour.
    pub usage_coarse: Duration,
    /// How long the change log is kept.
    pub changes: Duration,
    /// Events kept a host.
    pub events: i64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            passwords: PasswordCost::default(),
            certificate: identity::ca::HOST_LIFETIME,
            session: Duration::from_hours(12),
            heartbeat: Duration::from_secs(30),
            usage_fine: Duration::from_hours(24),
            usage_coarse: Duration::from_hours(24 * 30),
            changes: Duration::from_hours(1),
            events: 200,
        }
    }
}

/// What a password check costs (argon2id).
#[derive(Clone, Copy, Debug)]
pub struct PasswordCost {
    /// Memory in KiB.
    pub memory: u32,
    /// Passes over it.
    pub passes: u32,
}

impl Default for PasswordCost {
    /// What OWASP recommends first for argon2id.
    fn default() -> Self {
        Self {
            memory: 19 * 1024,
            passes: 2,
        }
    }
}

/// The fleet. Cheap to clone.
#[derive(Clone)]
pub struct Fleet(pub(crate) Arc<Inner>);

impl std::fmt::Debug for Fleet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Fleet").field(&self.0.db).finish()
    }
}

pub(crate) struct Inner {
    pub(crate) db: Db,
    pub(crate) keys: MasterKeys,
    pub(crate) options: Options,
    /// Password checks at a time: each takes memory and a core.
    pub(crate) hashing: Semaphore,
    /// Authorities that were needed, by tenant.
    pub(crate) authorities: ArcSwap<HashMap<String, Arc<Authority>>>,
    pub(crate) seen: crate::nodes::Seen,
    pub(crate) hub: crate::changes::Hub,
}

impl Fleet {
    /// Opens the database and brings its schema up to date.
    pub async fn open(url: &str, keys: MasterKeys, clock: &Clock, options: Options) -> Result<Self, Error> {
        let db = Db::open(url, clock).await?;
        Ok(Self::over(db, keys, options))
    }

    /// Writes a backup to a file of mode 0600, whole or not at all; how many rows it has. The server goes on meanwhile.
    pub async fn backup(&self, path: &Path) -> Result<u64, Error> {
        let part = path.with_extension("part");
        let failed = crate::db::backup::file;
        let mut options = tokio::fs::OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let file = options.open(&part).await.map_err(failed)?;
        let mut out = tokio::io::BufWriter::new(file);
        let rows = crate::db::backup::write(&self.0.db, &mut out).await?;
        out.into_inner().sync_all().await.map_err(failed)?;
        tokio::fs::rename(&part, path).await.map_err(failed)?;
        Ok(rows)
    }

    /// Restores a backup into the empty database at `url`; how many rows it had.
    pub async fn restore(url: &str, clock: &Clock, path: &Path) -> Result<u64, Error> {
        let file = tokio::fs::File::open(path)
            .await
            .map_err(crate::db::backup::file)?;
        crate::db::backup::restore(url, clock, &mut tokio::io::BufReader::new(file)).await
    }

    /// The fleet in an open database.
    #[must_use]
    pub fn over(db: Db, keys: MasterKeys, options: Options) -> Self {
        Self(Arc::new(Inner {
            db,
            keys,
            options,
            hashing: Semaphore::new(2),
            authorities: ArcSwap::default(),
            seen: crate::nodes::Seen::default(),
            hub: crate::changes::Hub::default(),
        }))
    }

    /// The database.
    #[must_use]
    pub fn db(&self) -> &Db {
        &self.0.db
    }

    /// The clock.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        self.0.db.clock()
    }

    /// The options.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.0.options
    }

    /// The keys that seal what is stored; `master().derive(PURPOSE)` gives the server secrets of its own.
    #[must_use]
    pub fn master(&self) -> &MasterKeys {
        &self.0.keys
    }

    pub(crate) fn seal(
        &self,
        purpose: &str,
        tenant: &str,
        record: &str,
        secret: &[u8],
    ) -> Result<Vec<u8>, Error> {
        let binding = Binding {
            purpose,
            tenant,
            record,
        };
        self.0.keys.seal(binding, secret).map_err(|e| Error::Identity {
            what: "sealing",
            source: Box::new(e),
        })
    }

    pub(crate) fn unseal(
        &self,
        purpose: &str,
        tenant: &str,
        record: &str,
        sealed: &[u8],
    ) -> Result<Vec<u8>, Error> {
        let binding = Binding {
            purpose,
            tenant,
            record,
        };
        self.0
            .keys
            .open_sealed(binding, sealed)
            .map_err(|e| Error::Identity {
                what: "opening a sealed secret",
                source: Box::new(e),
            })
    }
}
