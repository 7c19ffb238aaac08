use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};
use argon2::{Algorithm, Argon2, Params, Version};

use crate::{Error, Fleet};

const SHORTEST: usize = 10;
const LONGEST: usize = 1024;

/// What a password must be. Length counts, the rest is left to people (NIST SP 800-63B).
pub(super) fn check(password: &str) -> Result<(), Error> {
    if password.chars().count() < SHORTEST || password.len() > LONGEST {
        return Err(Error::invalid(
            "password",
            format!("has {SHORTEST} characters or more, and at most {LONGEST} bytes"),
        ));
    }
    Ok(())
}

fn argon(fleet: &Fleet) -> Result<Argon2<'static>, Error> {
    let cost = fleet.options().passwords;
    let params = Params::new(cost.memory, cost.passes, 1, None)
        .map_err(|e| Error::invalid("passwords", e.to_string()))?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

/// The hash of a password, as it is stored (PHC text with its own salt and cost).
pub(super) async fn hash(fleet: &Fleet, password: &str) -> Result<String, Error> {
    let argon = argon(fleet)?;
    let password = password.as_bytes().to_vec();
    run(fleet, move || {
        argon
            .hash_password(&password)
            .map(|hash| hash.to_string())
            .map_err(|e| Error::Identity {
                what: "hashing a password",
                source: e.to_string().into(),
            })
    })
    .await?
}

/// Whether a password fits. With no hash it takes as long and says no: who tries learns no user names.
pub(super) async fn fits(fleet: &Fleet, password: &str, hash: Option<&str>) -> Result<bool, Error> {
    let Some(hash) = hash.map(str::to_owned) else {
        let _ = self::hash(fleet, password).await?;
        return Ok(false);
    };
    if password.len() > LONGEST {
        return Ok(false);
    }
    let password = password.as_bytes().to_vec();
    run(fleet, move || {
        PasswordHash::new(&hash).is_ok_and(|hash| Argon2::default().verify_password(&password, &hash).is_ok())
    })
    .await
}

/// Off the runtime's threads, and only a few at a time: each takes a core and megabytes.
async fn run<T: Send + 'static>(
    fleet: &Fleet,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Error> {
    let _permit = fleet
        .0
        .hashing
        .acquire()
        .await
        .map_err(|e| Error::Unavailable(Box::new(e)))?;
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| Error::Unavailable(Box::new(e)))
}
