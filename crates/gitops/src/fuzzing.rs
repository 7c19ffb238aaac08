//! Doors for the fuzz targets, which stand outside of this crate. Only in their builds.

use crate::git::{tree, url::Url};

/// The names in git's binary list of a folder, with object names of `raw` bytes.
#[must_use]
pub fn folder_names(bytes: &[u8], raw: usize) -> Option<Vec<String>> {
    let items = tree::parse(bytes, raw)?;
    Some(items.into_iter().map(|item| item.name).collect())
}

/// What git is given as the address of a repository.
#[must_use]
pub fn repository_address(text: &str) -> Option<String> {
    Url::parse(text).ok().map(|url| url.address)
}
