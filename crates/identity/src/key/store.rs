//! Where a host's key is kept.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::Deserialize;
use telemetry::chain;

use super::{DEVICE, FileKey, HostKey, KeyError, TpmKey};
use crate::files;

/// What keeps a host's key, if there is none yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// The TPM if there is one that can; else a file.
    #[default]
    Auto,
    /// The TPM.
    Tpm,
    /// A file.
    File,
}

/// The folder of a host's key. It holds one key at most.
///
/// | file | what it is |
/// |---|---|
/// | `tpm-key.json` | a key that only this machine's TPM can use |
/// | `key.pem` | a private key in the clear |
///
/// Both have mode 0600.
#[derive(Clone, Debug)]
pub struct KeyStore {
    folder: PathBuf,
    place: Place,
    device: PathBuf,
}

impl KeyStore {
    /// A key in a folder, which need not be there yet. `device` is the kernel's (see [`DEVICE`]), or the socket of a
    /// software TPM.
    #[must_use]
    pub fn new(folder: PathBuf, place: Place, device: &Path) -> Self {
        Self {
            folder,
            place,
            device: device.into(),
        }
    }

    /// A key in a file.
    #[must_use]
    pub fn file(folder: PathBuf) -> Self {
        Self::new(folder, Place::File, Path::new(DEVICE))
    }

    /// The key: the one that is there, wherever it is, or else a new one.
    ///
    /// A file that holds none is replaced by a new key: the host asks anew, which a person sees. A key of a TPM that
    /// doesn't know it is an error.
    pub fn open(&self) -> Result<Arc<dyn HostKey>, KeyError> {
        match self.read() {
            Ok(Some(key)) => Ok(key),
            Ok(None) => self.make(),
            Err(KeyError::Damaged { path }) => {
                tracing::error!(file = %path.display(), "the host's key is damaged: a new one is made");
                self.forget()?;
                self.make()
            }
            Err(error) => Err(error),
        }
    }

    /// Removes the key, for good.
    pub fn forget(&self) -> Result<(), KeyError> {
        for path in [self.tpm_file(), self.key_file()] {
            files::remove(&path).map_err(|source| KeyError::File {
                verb: "remove",
                path,
                source,
            })?;
        }
        Ok(())
    }

    fn read(&self) -> Result<Option<Arc<dyn HostKey>>, KeyError> {
        if let Some(key) = TpmKey::read(&self.device, &self.tpm_file())? {
            self.kept(Place::Tpm);
            return Ok(Some(Arc::new(key)));
        }
        let Some(key) = FileKey::read(&self.key_file())? else {
            return Ok(None);
        };
        self.kept(Place::File);
        Ok(Some(Arc::new(key)))
    }

    /// Says so if the key is not where it is wanted. It stays: another key would be another host.
    fn kept(&self, place: Place) {
        if !matches!(self.place, Place::Auto) && self.place != place {
            tracing::warn!(
                wanted = ?self.place, is = ?place,
                "this host's key is kept where it was made; `selvedge-host enroll --again` makes a new one"
            );
        }
    }

    fn make(&self) -> Result<Arc<dyn HostKey>, KeyError> {
        let tpm = || TpmKey::make(&self.device, &self.tpm_file());
        match self.place {
            Place::Tpm => return Ok(Arc::new(tpm()?)),
            Place::Auto if self.device.exists() => match tpm() {
                Ok(key) => return Ok(Arc::new(key)),
                Err(error) => {
                    tracing::warn!(error = %chain(&error), "the TPM can't keep the host's key: a file does");
                }
            },
            Place::Auto | Place::File => {}
        }
        Ok(Arc::new(FileKey::open(&self.key_file())?))
    }

    fn key_file(&self) -> PathBuf {
        self.folder.join("key.pem")
    }

    fn tpm_file(&self) -> PathBuf {
        self.folder.join("tpm-key.json")
    }
}
