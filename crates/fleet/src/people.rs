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

/// Refuses what would leave a tenant without anybody who may change it.
async fn keeps_an_owner(tx: &mut Tx<'_>, tenant: &str) -> Result<(), Error> {
    let row = tx
        .row(
            "SELECT COUNT(*) FROM binding b JOIN person p ON p.tenant=b.tenant AND p.id=b.person \
             WHERE b.tenant=$1 AND b.role='owner' AND b.scope='{\"all\":true}' AND p.disabled=0",
            args![tenant],
        )
        .await?;
    if row.is_some_and(|row| row.int(0) > 0) {
        Ok(())
    } else {
        Err(Error::conflict(
            "this would leave the tenant without an owner: make another one first",
        ))
    }
}
