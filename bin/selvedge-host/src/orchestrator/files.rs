//! Small files that must outlive a power cut.

use std::{fs, io, io::Write, os::unix::fs::DirBuilderExt, path::Path};

/// Writes a file that only its owner may read: afterwards, also after a power cut, it is the new one whole, or else the
/// old one.
pub(super) fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().ok_or_else(|| io::Error::other("no folder"))?;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    // Made with mode 0600.
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|e| e.error)?;
    fs::File::open(folder)?.sync_all()
}

/// Removes a file for good; none there is fine.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        done => done?,
    }
    match path.parent() {
        Some(folder) => fs::File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}
