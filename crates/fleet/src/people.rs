//! People: accounts, passwords, second factors, what they may do.
//!
//! | module | what it is |
//! |---|---|
//! | `accounts` | users: list, create, change, delete |
//! | `bindings` | roles and scopes |
//! | `sign_in` | passwords, codes, OpenID Connect, and how tries are slowed down |
//! | `password` | argon2id |
//! | `sessions` | signed-in browsers |
//! | `tokens` | programs |

mod accounts;
mod bindings;
mod password;
mod sessions;
mod sign_in;
mod tokens;
mod totp;

pub use accounts::People;
pub use bindings::Bindings;
pub use sessions::{NewSession, Session, Sessions};
pub use sign_in::{OidcPerson, Person};
pub use tokens::Tokens;
pub use totp::TotpStart;

use crate::db::Tx;
use crate::{Error, args};

/// How many people may change everything in a tenant.
async fn owners(tx: &mut Tx<'_>, tenant: &str) -> Result<i64, Error> {
    let row = tx
        .row(
            "SELECT COUNT(*) FROM binding b JOIN person p ON p.tenant=b.tenant AND p.id=b.person \
             WHERE b.tenant=$1 AND b.role='owner' AND b.scope='{\"all\":true}' AND p.disabled=0",
            args![tenant],
        )
        .await?;
    Ok(row.map_or(0, |row| row.int(0)))
}

/// Refuses what took the last owner away from a tenant that had `before`.
async fn keeps_an_owner(tx: &mut Tx<'_>, tenant: &str, before: i64) -> Result<(), Error> {
    if before > 0 && owners(tx, tenant).await? == 0 {
        return Err(Error::conflict(
            "this would leave the tenant without an owner: make another one first",
        ));
    }
    Ok(())
}
