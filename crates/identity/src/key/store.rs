//! Where a host's key is kept.

use std::{path::PathBuf, sync::Arc};

use super::{FileKey, HostKey, KeyError};
use crate::files;

/// The folder of a host's key. It holds one key at most.
///
/// | file | what it is |
/// |---|---|
/// | `key.pem` | a private key in the clear, mode 0600 |
#[derive(Clone, Debug)]
pub struct KeyStore {
    folder: PathBuf,
}

impl KeyStore {
    /// A key in a folder, which need not be there yet.
    #[must_use]
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// The key, which is made if there is none.
    ///
    /// A file that holds none is replaced by a new key: the host asks anew, which a person sees.
    pub fn open(&self) -> Result<Arc<dyn HostKey>, KeyError> {
        let file = self.file();
        match FileKey::open(&file) {
            Ok(key) => Ok(Arc::new(key)),
            Err(KeyError::Damaged { path }) => {
                tracing::error!(file = %path.display(), "the host's key is damaged: a new one is made");
                self.forget()?;
                Ok(Arc::new(FileKey::open(&file)?))
            }
            Err(error) => Err(error),
        }
    }

    /// Removes the key, for good.
    pub fn forget(&self) -> Result<(), KeyError> {
        let path = self.file();
        files::remove(&path).map_err(|source| KeyError::File {
            verb: "remove",
            path,
            source,
        })
    }

    fn file(&self) -> PathBuf {
        self.folder.join("key.pem")
    }
}
