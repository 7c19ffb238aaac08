//! Files that hold keys: private, whole or absent, on disk before they count.

use std::{
    fs::{self, File, OpenOptions},
    io::{ErrorKind, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
};

use anyhow::Context;

/// Holds a folder for as long as the file lives: many may share it (`alone` false), or one has it for itself.
pub(crate) fn hold(folder: &Path, alone: bool) -> anyhow::Result<File> {
    make_dir(folder)?;
    let path = folder.join("lock");
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .with_context(|| format!("can't open {}", path.display()))?;
    let held = if alone {
        file.try_lock()
    } else {
        file.try_lock_shared()
    };
    held.with_context(|| format!("another process of the orchestrator uses {}", folder.display()))?;
    Ok(file)
}

/// Makes a folder that only its owner may enter, unless it is there.
pub(crate) fn make_dir(path: &Path) -> anyhow::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| format!("can't make the folder {}", path.display()))
}

/// The content of a file, `None` if there is none.
pub(crate) fn read(path: &Path) -> anyhow::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("can't read {}", path.display())),
    }
}

/// Writes a file; a crash leaves the old one, none, or the new one.
pub(crate) fn write(path: &Path, content: &[u8], mode: u32) -> anyhow::Result<()> {
    let failed = || format!("can't write {}", path.display());
    // A name of its own, so that two processes that start together do not write into one file.
    let temporary = path.with_extension(format!("new-{}", std::process::id()));
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error).with_context(failed),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&temporary)
        .with_context(failed)?;
    file.write_all(content)
        .and_then(|()| file.sync_all())
        .with_context(failed)?;
    fs::rename(&temporary, path).with_context(failed)?;
    if let Some(dir) = path.parent() {
        File::open(dir)
            .and_then(|dir| dir.sync_all())
            .with_context(failed)?;
    }
    Ok(())
}
