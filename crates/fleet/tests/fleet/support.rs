//! A fleet for each test, on SQLite and on PostgreSQL.

pub(crate) mod postgres;

use std::time::Duration;

use fleet::model::{SiteSpec, Tenant, TenantSpec};
use fleet::{Caller, Fleet, Options, PasswordCost, Role, Scope};
use identity::seal::MasterKeys;
use jiff::SignedDuration;
use telemetry::Clock;

/// Which database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum On {
    Sqlite,
    Postgres,
}

/// A fleet with one tenant and its owner.
pub(crate) struct Setup {
    pub(crate) fleet: Fleet,
    pub(crate) clock: Clock,
    pub(crate) tenant: Tenant,
    pub(crate) owner: Caller,
    pub(crate) url: String,
    pub(crate) keys: String,
    // Removed when the test ends, also when it fails.
    _dir: tempfile::TempDir,
}

pub(crate) fn options() -> Options {
    Options {
        // As cheap as argon2 allows: what it costs is not what is tested.
        passwords: PasswordCost { memory: 8, passes: 1 },
        ..Options::default()
    }
}

/// An empty database.
pub(crate) fn database(on: On, dir: &tempfile::TempDir) -> String {
    match on {
        On::Sqlite => format!("sqlite:{}", dir.path().join("fleet.db").display()),
        On::Postgres => postgres::shared().database().unwrap(),
    }
}

impl Setup {
    pub(crate) async fn new(on: On) -> Self {
        Self::with(on, options()).await
    }

    pub(crate) async fn with(on: On, options: Options) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let url = database(on, &dir);
        let clock = Clock::fixed("2026-03-01T12:00:00Z".parse().unwrap());
        let key_file = dir.path().join("master.key");
        let keys = MasterKeys::open(&key_file).unwrap();
        let fleet = Fleet::open(&url, keys, &clock, options).await.unwrap();
        let tenant = make_tenant(&fleet, "acme").await;
        let owner = Caller::user(&tenant.id, "ada", Role::Owner, Scope::All);
        Self {
            fleet,
            clock,
            tenant,
            owner,
            url,
            keys: std::fs::read_to_string(key_file).unwrap(),
            _dir: dir,
        }
    }

    pub(crate) fn keys(&self) -> MasterKeys {
        MasterKeys::parse(&self.keys).unwrap()
    }

    pub(crate) fn later(&self, seconds: i64) {
        self.clock.advance(SignedDuration::from_secs(seconds));
    }

    /// A site with labels `k=v,…`.
    pub(crate) async fn site(&self, name: &str, labels: &str) -> fleet::model::Site {
        let spec = SiteSpec {
            name: name.to_owned(),
            labels: map(labels),
            ..SiteSpec::default()
        };
        self.fleet.sites().create(&self.owner, &spec).await.unwrap()
    }
}

pub(crate) async fn make_tenant(fleet: &Fleet, name: &str) -> Tenant {
    let spec = TenantSpec {
        name: name.to_owned(),
        display_name: String::new(),
    };
    fleet
        .tenants()
        .create(&Caller::system("", "test"), &spec)
        .await
        .unwrap()
}

pub(crate) fn map(text: &str) -> fleet::model::Map {
    text.split(',')
        .filter_map(|pair| pair.split_once('='))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

/// Waits until `check` says so; fails after a while.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, mut check: impl FnMut() -> F) {
    let tried = tokio::time::timeout(Duration::from_secs(20), async {
        while !check().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    assert!(tried.await.is_ok(), "waited in vain: {what}");
}

/// One test on both databases.
macro_rules! both {
    ($(#[$meta:meta])* $name:ident, |$setup:ident| $body:block) => {
        mod $name {
            #[allow(unused_imports, reason = "not each test uses all of them")]
            use super::*;
            async fn body($setup: crate::support::Setup) $body
            $(#[$meta])*
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn sqlite() {
                body(crate::support::Setup::new(crate::support::On::Sqlite).await).await;
            }
            $(#[$meta])*
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn postgres() {
                body(crate::support::Setup::new(crate::support::On::Postgres).await).await;
            }
        }
    };
}
pub(crate) use both;
