//! Files that hold keys: private, whole or absent, on disk before they count.

use std::{
    fs::{self, File, OpenOptions},
    io::{ErrorKind, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
};

use super::Error;

fn failed(verb: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::File { verb, path, source }
}

/// Makes a folder that only its owner may enter, unless it is there.
pub(super) fn make_dir(path: &Path) -> Result<(), Error> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(failed("make", path))
}

/// The content of a file, `None` if there is none.
pub(super) fn read(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("read", path)(error)),
    }
}

/// Writes a file when its content differs; a crash leaves the old or the new one.
pub(super) fn write_if_changed(path: &Path, content: &[u8], mode: u32) -> Result<bool, Error> {
    if read(path)?.as_deref() == Some(content) {
        return Ok(false);
    }
    write(path, content, mode)?;
    Ok(true)
}

/// Writes a file; a crash leaves the old or the new one.
pub(super) fn write(path: &Path, content: &[u8], mode: u32) -> Result<(), Error> {
    let temporary = path.with_extension("new");
    // A left-over of a crash may have other permissions: start afresh.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed("write", &temporary)(error)),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&temporary)
        .map_err(failed("write", &temporary))?;
    file.write_all(content)
        .and_then(|()| file.sync_all())
        .map_err(failed("write", &temporary))?;
    fs::rename(&temporary, path).map_err(failed("write", path))?;
    if let Some(dir) = path.parent() {
        File::open(dir)
            .and_then(|dir| dir.sync_all())
            .map_err(failed("write", dir))?;
    }
    Ok(())
}
