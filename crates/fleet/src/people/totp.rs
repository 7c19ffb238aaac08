//! Second factors: six digits of RFC 6238, SHA-1, 30 s, which is what people's apps can. A code counts once.

use totp_rs::{Builder, Secret, Totp};

use super::accounts::{People, locked, object};
use crate::db::Tx;
use crate::model::UserKind;
use crate::{Caller, Error, Fleet, args, secrets};

const STEP: u64 = 30;
const PURPOSE: &str = "totp";

/// What a person's app must know; shown once.
#[derive(Clone, serde::Serialize, utoipa::ToSchema)]
pub struct TotpStart {
    /// For a QR code: `otpauth://totp/…`.
    pub url: String,
    /// The secret in base 32, to be typed.
    pub secret: String,
}

impl std::fmt::Debug for TotpStart {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TotpStart(…)")
    }
}

fn totp(secret: &[u8]) -> Result<Totp, Error> {
    Builder::new()
        .with_secret(secret.to_vec())
        .build()
        .map_err(|_| Error::Damaged {
            what: "a second factor".to_owned(),
        })
}

/// The time step whose code this is: this one, the one before or the one after.
fn step_of(totp: &Totp, code: &str, now: u64) -> Option<i64> {
    let code: String = code.chars().filter(|c| !c.is_whitespace()).collect();
    let this = now / STEP;
    [this, this.saturating_sub(1), this + 1]
        .into_iter()
        .find(|step| {
            let right = totp.generate(step * STEP).to_string();
            identity::proof::same_secret(right.as_bytes(), code.as_bytes())
        })
        .and_then(|step| i64::try_from(step).ok())
}

/// Whether a code is right and new; marks it as used.
pub(super) async fn accept(
    fleet: &Fleet,
    tx: &mut Tx<'_>,
    (tenant, person): (&str, &str),
    sealed: &[u8],
    code: &str,
) -> Result<bool, Error> {
    let secret = fleet.unseal(PURPOSE, tenant, person, sealed)?;
    let now = u64::try_from(tx.now.millis() / 1000).unwrap_or(0);
    let Some(step) = step_of(&totp(&secret)?, code, now) else {
        return Ok(false);
    };
    // A code that was seen on its way is of no use, nor is an older one.
    let used = tx
        .run(
            "UPDATE person SET totp_step=$3 WHERE tenant=$1 AND id=$2 AND totp_step<$3",
            args![tenant, person, step],
        )
        .await?;
    Ok(used == 1)
}

impl People<'_> {
    /// Begins: a new secret, in force once [`People::confirm_totp`] had a code of it.
    pub async fn start_totp(&self, caller: &Caller) -> Result<TotpStart, Error> {
        let secret = secrets::bytes::<20>()?;
        let fleet = self.0;
        let user = fleet.people().get(caller, &caller.actor).await?;
        if user.kind != UserKind::Local {
            return Err(Error::conflict(
                "the second factor of this user is kept by their provider",
            ));
        }
        let sealed = &fleet.seal(PURPOSE, &caller.tenant, &user.id, &secret)?;
        fleet
            .db()
            .write(|tx| {
                Box::pin(async move {
                    let user = locked(tx, &caller.tenant, &caller.actor).await?;
                    if user.totp {
                        return Err(Error::conflict(
                            "there is a second factor already: an owner can take it away",
                        ));
                    }
                    tx.run(
                        "UPDATE person SET totp=1, totp_secret=$3 WHERE tenant=$1 AND id=$2",
                        args![&caller.tenant, &user.id, sealed],
                    )
                    .await?;
                    Ok(())
                })
            })
            .await?;
        let secret = Secret::from(secret.to_vec()).to_base32();
        let label: String = user.username.chars().flat_map(escape).collect();
        Ok(TotpStart {
            url: format!(
                "otpauth://totp/Selvedge:{label}?secret={secret}&issuer=Selvedge&algorithm=SHA1&digits=6&period={STEP}"
            ),
            secret,
        })
    }

    /// Puts the begun second factor in force, given a code of it.
    pub async fn confirm_totp(&self, caller: &Caller, code: &str) -> Result<(), Error> {
        let fleet = self.0;
        fleet
            .db()
            .write(|tx| {
                Box::pin(async move {
                    let user = locked(tx, &caller.tenant, &caller.actor).await?;
                    let row = tx
                        .row(
                            "SELECT totp_secret FROM person WHERE tenant=$1 AND id=$2 AND totp=1",
                            args![&caller.tenant, &user.id],
                        )
                        .await?;
                    let Some(sealed) = row.and_then(|row| row.bytes(0)) else {
                        return Err(Error::conflict("no second factor was begun"));
                    };
                    if !accept(fleet, tx, (&caller.tenant, &user.id), &sealed, code).await? {
                        return Err(Error::invalid(
                            "code",
                            "is wrong or was used: wait for the next one",
                        ));
                    }
                    tx.run(
                        "UPDATE person SET totp=2, generation=generation+1 WHERE tenant=$1 AND id=$2",
                        args![&caller.tenant, &user.id],
                    )
                    .await?;
                    tx.audit(
                        caller,
                        "user.totp.enable",
                        object(&user),
                        None::<&()>,
                        None::<&()>,
                    );
                    Ok(())
                })
            })
            .await
    }

    /// Takes the second factor of a user away: owners, for who lost theirs.
    pub async fn remove_totp(&self, caller: &Caller, name: &str) -> Result<(), Error> {
        caller.require(crate::Role::Owner)?;
        self.0
            .db()
            .write(|tx| {
                Box::pin(async move {
                    let user = locked(tx, &caller.tenant, name).await?;
                    if user.platform_admin {
                        caller.require_platform()?;
                    }
                    tx.run(
                        "UPDATE person SET totp=0, totp_secret=NULL, generation=generation+1 \
                         WHERE tenant=$1 AND id=$2",
                        args![&caller.tenant, &user.id],
                    )
                    .await?;
                    tx.audit(
                        caller,
                        "user.totp.remove",
                        object(&user),
                        None::<&()>,
                        None::<&()>,
                    );
                    Ok(())
                })
            })
            .await
    }
}

/// Percent-encodes what is special in a URL's path.
fn escape(c: char) -> Vec<char> {
    if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') {
        return vec![c];
    }
    let mut buffer = [0; 4];
    c.encode_utf8(&mut buffer)
        .bytes()
        .flat_map(|b| format!("%{b:02X}").chars().collect::<Vec<_>>())
        .collect()
}
