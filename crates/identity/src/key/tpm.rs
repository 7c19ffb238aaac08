//! A key that a TPM 2.0 made and never gives away.
//!
//! The TPM makes an ECDSA P-256 key below its storage key and hands it out wrapped: only this TPM can use the wrapped key,
//! and only until it is cleared. It lies in a file, so that nothing is written to the TPM's small memory. Whoever copies the
//! disk has nothing; whoever runs as root on this very machine can sign for as long as he does.
//!
//! ```text
//!   owner's seed ──CreatePrimary──▶ storage key ──Create──▶ {public, private wrapped} ──▶ tpm-key.json
//!                                        └────────Load─────────────▶ handle ──Sign──▶ (r, s)
//! ```
//!
//! # Why this way
//!
//! The commands are sent to `/dev/tpmrm0` as the crate `tpm2-protocol` writes them: it is by the maintainer of the kernel's
//! TPM driver, stable, without dependencies, and all that is left to do here is to name six commands. The alternatives:
//! `tss-esapi` links Debian's tpm2-tss into the daemon, for every host. The programs of tpm2-tools are another package on
//! every host, two processes and 25 ms for each signature where this takes 0.4 ms (with swtpm), keys passed in temporary
//! files, and texts to be parsed to know what went wrong.
//!
//! The kernel's resource manager (`tpmrm0`, not `tpm0`) shares the TPM with others and removes what was loaded when the
//! daemon ends, however it ends. The key stays loaded between signatures: a TPM takes long enough for one command. The
//! example `tpm` measures one: through the kernel of a machine in QEMU, with swtpm, a signature takes 4 to 5 ms.

mod device;
mod error;
mod template;

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use aws_lc_rs::digest;
use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use tokio::runtime::{Handle, RuntimeFlavor};
use tpm2_protocol::{
    TpmMarshal, TpmUnmarshal, TpmWriter,
    basic::TpmUint32,
    constant::TPM_MAX_COMMAND_SIZE,
    data::{
        Tpm2bData, Tpm2bDigest, Tpm2bPrivate, Tpm2bPublic, Tpm2bSensitiveCreate, TpmRh, TpmSt,
        TpmlPcrSelection, TpmtSigScheme, TpmtTkHashcheck, TpmuSignature,
    },
    frame::{
        TpmCreateCommand, TpmCreatePrimaryCommand, TpmCreatePrimaryResponse, TpmCreateResponse,
        TpmFlushContextCommand, TpmFlushContextResponse, TpmLoadCommand, TpmLoadResponse, TpmSignCommand,
        TpmSignResponse,
    },
};

pub use self::error::TpmError;
use self::{
    device::Device,
    error::{CREATE_PRIMARY, LOAD},
    template::{point, signing_template, storage_template},
};
use super::{HostKey, KeyError};
use crate::files;

/// Where Linux shows a TPM whose users are kept apart.
pub const DEVICE: &str = "/dev/tpmrm0";

/// A key in a TPM.
pub struct TpmKey {
    device: PathBuf,
    wrapped: Wrapped,
    /// SEC 1, uncompressed.
    point: Vec<u8>,
    loaded: Mutex<Option<Loaded>>,
}

/// What lies on disk, as the TPM gave it (`TPM2B_PUBLIC`, `TPM2B_PRIVATE`), in base64.
#[derive(Serialize, Deserialize)]
struct Stored {
    public: String,
    private: String,
}

struct Wrapped {
    public: Tpm2bPublic,
    private: Tpm2bPrivate,
}

impl TpmKey {
    /// Makes a key in the TPM at `device`, and keeps it in a file of mode 0600.
    pub fn make(device: &Path, file: &Path) -> Result<Self, KeyError> {
        aside(|| Self::make_now(device, file))
    }

    fn make_now(device: &Path, file: &Path) -> Result<Self, KeyError> {
        let mut tpm = Device::open(device)?;
        let storage = storage_key(&mut tpm)?;
        let made: Result<TpmCreateResponse, _> = tpm.run(
            "Create",
            &TpmCreateCommand {
                handles: [storage],
                in_sensitive: Tpm2bSensitiveCreate::default(),
                in_public: signing_template().into(),
                outside_info: Tpm2bData::default(),
                creation_pcr: TpmlPcrSelection::default(),
            },
            true,
        );
        flush(&mut tpm, storage);
        let made = made?;
        drop(tpm);
        let wrapped = Wrapped {
            public: made.out_public,
            private: made.out_private,
        };
        let stored = wrapped.stored().ok_or(TpmError::Nonsense { command: "Create" })?;
        let key = Self::new(device, wrapped).ok_or(TpmError::Nonsense { command: "Create" })?;
        // Before it is kept: a TPM that makes keys and can't use them is none to rely on.
        key.sign(&[])?;
        let failed = |source| KeyError::File {
            verb: "write",
            path: file.into(),
            source,
        };
        let text = serde_json::to_vec(&stored).map_err(|e| failed(e.into()))?;
        files::write(file, &text, 0o600).map_err(failed)?;
        Ok(key)
    }

    /// Whether there is a TPM that can keep a key. Changes nothing.
    pub fn probe(device: &Path) -> Result<(), TpmError> {
        aside(|| {
            let mut tpm = Device::open(device)?;
            let storage = storage_key(&mut tpm)?;
            flush(&mut tpm, storage);
            Ok(())
        })
    }

    /// Reads a key, and sees that this TPM knows it; none if there is no file.
    pub fn read(device: &Path, file: &Path) -> Result<Option<Self>, KeyError> {
        let bytes = files::read(file).map_err(|source| KeyError::File {
            verb: "read",
            path: file.into(),
            source,
        })?;
        let Some(bytes) = bytes else { return Ok(None) };
        let damaged = || KeyError::Damaged { path: file.into() };
        let stored: Stored = serde_json::from_slice(&bytes).map_err(|_| damaged())?;
        let key = Wrapped::read(&stored)
            .and_then(|wrapped| Self::new(device, wrapped))
            .ok_or_else(damaged)?;
        *key.loaded.lock().unwrap_or_else(PoisonError::into_inner) = Some(aside(|| key.load())?);
        Ok(Some(key))
    }

    fn new(device: &Path, wrapped: Wrapped) -> Option<Self> {
        Some(Self {
            device: device.into(),
            point: point(&wrapped.public)?,
            wrapped,
            loaded: Mutex::default(),
        })
    }

    fn load(&self) -> Result<Loaded, TpmError> {
        let mut tpm = Device::open(&self.device)?;
        let storage = storage_key(&mut tpm)?;
        let loaded: Result<TpmLoadResponse, _> = tpm.run(
            LOAD,
            &TpmLoadCommand {
                handles: [storage],
                in_private: self.wrapped.private,
                in_public: self.wrapped.public.clone(),
            },
            true,
        );
        flush(&mut tpm, storage);
        let [key] = loaded?.handles;
        Ok(Loaded { tpm, key })
    }

    fn signature(&self, digest: &[u8]) -> Result<Vec<u8>, TpmError> {
        let mut kept = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        // What was loaded may be gone: the machine slept, a driver was loaded anew.
        if let Some(mut loaded) = kept.take() {
            match loaded.sign(digest) {
                Ok(signature) => {
                    *kept = Some(loaded);
                    return Ok(signature);
                }
                Err(error) => tracing::debug!(%error, "the TPM did not sign; the key is loaded anew"),
            }
        }
        let mut loaded = self.load()?;
        let signature = loaded.sign(digest)?;
        *kept = Some(loaded);
        Ok(signature)
    }
}

impl fmt::Debug for TpmKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TpmKey")
            .field("device", &self.device)
            .finish_non_exhaustive()
    }
}

impl HostKey for TpmKey {
    fn public_key(&self) -> &[u8] {
        &self.point
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        let digest = digest::digest(&digest::SHA256, message);
        Ok(aside(|| self.signature(digest.as_ref()))?)
    }

    fn in_tpm(&self) -> bool {
        true
    }
}

/// Speaks with the TPM where nobody else waits: the kernel gives a TPM that hangs minutes, and the rest of the host is to
/// go on meanwhile.
fn aside<T>(speak: impl FnOnce() -> T) -> T {
    match Handle::try_current() {
        Ok(runtime) if runtime.runtime_flavor() == RuntimeFlavor::MultiThread => {
            tokio::task::block_in_place(speak)
        }
        _ => speak(),
    }
}

/// A key that is in the TPM now.
struct Loaded {
    tpm: Device,
    key: TpmUint32,
}

impl Loaded {
    fn sign(&mut self, digest: &[u8]) -> Result<Vec<u8>, TpmError> {
        let nonsense = TpmError::Nonsense { command: "Sign" };
        let Ok(digest) = Tpm2bDigest::try_from(digest) else {
            return Err(nonsense);
        };
        let signed: TpmSignResponse = self.tpm.run(
            "Sign",
            &TpmSignCommand {
                handles: [self.key],
                digest,
                // The key's own.
                in_scheme: TpmtSigScheme::default(),
                // Only keys that are restricted want to know where a digest comes from.
                validation: TpmtTkHashcheck {
                    tag: TpmSt::HashCheck,
                    hierarchy: TpmRh::Null,
                    digest: Tpm2bDigest::default(),
                },
            },
            true,
        )?;
        match signed.signature.signature {
            TpmuSignature::Ecdsa(parts) => {
                der_signature(&parts.signature_r, &parts.signature_s).ok_or(nonsense)
            }
            _ => Err(nonsense),
        }
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        // The kernel does it too; a software TPM's socket does not.
        flush(&mut self.tpm, self.key);
    }
}

impl Wrapped {
    fn stored(&self) -> Option<Stored> {
        Some(Stored {
            public: encoded(&self.public)?,
            private: encoded(&self.private)?,
        })
    }

    fn read(stored: &Stored) -> Option<Self> {
        Some(Self {
            public: decoded(&stored.public)?,
            private: decoded(&stored.private)?,
        })
    }
}

fn encoded(value: &impl TpmMarshal) -> Option<String> {
    let mut buffer = [0; TPM_MAX_COMMAND_SIZE];
    let mut writer = TpmWriter::new(&mut buffer);
    value.marshal(&mut writer).ok()?;
    Some(STANDARD.encode(writer.as_bytes()))
}

fn decoded<T: TpmUnmarshal>(text: &str) -> Option<T> {
    let bytes = STANDARD.decode(text).ok()?;
    match T::unmarshal(&bytes) {
        Ok((value, [])) => Some(value),
        _ => None,
    }
}

/// The TPM's storage key: the same each time, for as long as the TPM is not cleared.
fn storage_key(tpm: &mut Device) -> Result<TpmUint32, TpmError> {
    let made: TpmCreatePrimaryResponse = tpm.run(
        CREATE_PRIMARY,
        &TpmCreatePrimaryCommand {
            handles: [TpmUint32::from(TpmRh::Owner.value())],
            in_public: storage_template().into(),
            ..TpmCreatePrimaryCommand::default()
        },
        true,
    )?;
    let [handle] = made.handles;
    Ok(handle)
}

/// Removes from the TPM what was loaded.
fn flush(tpm: &mut Device, handle: TpmUint32) {
    let flushed: Result<TpmFlushContextResponse, _> = tpm.run(
        "FlushContext",
        &TpmFlushContextCommand {
            handles: [],
            flush_handle: handle,
        },
        false,
    );
    if let Err(error) = flushed {
        tracing::debug!(%error, "the TPM did not forget a key");
    }
}

/// ECDSA-Sig-Value (RFC 3279, section 2.2.3) of two numbers of at most 32 bytes.
fn der_signature(r: &[u8], s: &[u8]) -> Option<Vec<u8>> {
    let integer = |number: &[u8]| {
        let start = number.iter().position(|&byte| byte != 0)?;
        let number = &number[start..];
        // A first bit that is set would mean a negative number.
        let sign: &[u8] = if number[0] & 0x80 == 0 { &[] } else { &[0] };
        let length = u8::try_from(sign.len() + number.len()).ok()?;
        (length <= 33).then(|| [&[2, length], sign, number].concat())
    };
    let body = [integer(r)?, integer(s)?].concat();
    Some([&[0x30, u8::try_from(body.len()).ok()?], &body[..]].concat())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_of_a_signature_are_written_as_short_as_they_are() {
        let signature = der_signature(&[0, 0, 0x7f], &[0x80]).unwrap();
        assert_eq!(signature, [0x30, 7, 2, 1, 0x7f, 2, 2, 0, 0x80]);
        assert_eq!(der_signature(&[0; 32], &[1]), None);
        assert_eq!(der_signature(&[1; 34], &[1]), None);
        assert_eq!(der_signature(&[0xff; 32], &[0xff; 32]).unwrap().len(), 2 + 2 * 35);
    }

    proptest! {
        #[test]
        fn no_file_makes_the_reader_fall(
            public in proptest::collection::vec(any::<u8>(), 0..200),
            private in proptest::collection::vec(any::<u8>(), 0..200),
            cut in 0_usize..200,
        ) {
            let read = |public: &[u8]| {
                let stored = Stored { public: STANDARD.encode(public), private: STANDARD.encode(&private) };
                Wrapped::read(&stored).and_then(|wrapped| point(&wrapped.public))
            };
            read(&public);
            // Almost right, too.
            let mut right = STANDARD.decode(encoded(&Tpm2bPublic::from(signing_template())).unwrap()).unwrap();
            for (at, byte) in public.iter().take(2).enumerate() {
                let place = (cut + at * 7) % right.len();
                right[place] ^= byte;
            }
            read(&right);
            right.truncate(cut);
            read(&right);
        }

        #[test]
        fn a_signature_is_short_or_none(r in proptest::collection::vec(any::<u8>(), 0..70), s in proptest::collection::vec(any::<u8>(), 0..70)) {
            if let Some(der) = der_signature(&r, &s) {
                prop_assert!(der.len() <= 72 && usize::from(der[1]) == der.len() - 2);
            }
        }
    }
}
