//! Hosts: expected, pending, enrolled, revoked; and what they report.

mod read;
mod write;

pub(crate) use read::{event, locked};
pub(crate) use write::{blank, insert, name_from, object, own_name, placed, words};

use crate::{Error, Fleet, args};

/// See [`Fleet::hosts`].
#[derive(Clone, Copy, Debug)]
pub struct Hosts<'a>(pub(crate) &'a Fleet);

impl Fleet {
    /// Hosts.
    #[must_use]
    pub fn hosts(&self) -> Hosts<'_> {
        Hosts(self)
    }
}

/// What a certificate that was signed by its tenant's authority is good for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The host may connect.
    Known {
        /// Its name.
        name: String,
        /// Its site's id.
        site: Option<String>,
    },
    /// It was revoked.
    Revoked,
    /// There is no such host (any more), or it has another certificate's series.
    Unknown,
}

impl Hosts<'_> {
    /// Whether the holder of a certificate may connect.
    pub async fn by_certificate(&self, tenant: &str, host: &str, serial: &str) -> Result<Standing, Error> {
        let row = self
            .0
            .db()
            .row(
                "SELECT h.phase,h.name,h.site,c.revoked_at,c.serial FROM host h LEFT JOIN certificate c \
                 ON c.tenant=h.tenant AND c.host=h.id AND c.serial=$3 WHERE h.tenant=$1 AND h.id=$2",
                args![tenant, host, serial],
            )
            .await?;
        Ok(match row {
            None => Standing::Unknown,
            Some(row) if row.str(0) == "revoked" || row.opt_int(3).is_some() => Standing::Revoked,
            // A certificate that was issued after the backup that this database came from is good all the same: the
            // tenant's authority signed it, and its host was not revoked.
            Some(row) if row.str(0) == "enrolled" => Standing::Known {
                name: row.text(1),
                site: row.opt_text(2),
            },
            Some(_) => Standing::Unknown,
        })
    }

    /// Ids of all revoked hosts: what links are checked against, by tenant.
    pub async fn revoked(&self) -> Result<Vec<(String, String)>, Error> {
        let rows = self
            .0
            .db()
            .rows("SELECT tenant,id FROM host WHERE phase='revoked'", vec![])
            .await?;
        Ok(rows.iter().map(|row| (row.text(0), row.text(1))).collect())
    }
}
