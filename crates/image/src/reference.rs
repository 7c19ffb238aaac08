//! What `imageName` says.

use std::fmt;
use std::path::{Path, PathBuf};

use reqwest::Url;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::Error;

/// The longest image name.
const MAX_LENGTH: usize = 2048;

/// Where an image is, as a manifest says it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ImageRef {
    /// `http://…` or `https://…`.
    Url(String),
    /// `host[:port]/path`: https is tried, then http.
    Host(String),
    /// `file:///path`, in a library.
    File(PathBuf),
    /// A bare file name, looked up in the libraries.
    Name(String),
}

impl ImageRef {
    /// Reads an image name.
    ///
    /// # Errors
    /// [`Error::BadReference`], with what to write instead.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let text = text.trim();
        let bad = |reason| Error::BadReference {
            name: shorten(text),
            reason,
        };
        if text.is_empty() {
            return Err(bad("it is empty"));
        }
        if text.len() > MAX_LENGTH {
            return Err(bad("it is too long"));
        }
        if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(bad("it has spaces or control characters"));
        }
        if let Some((scheme, _)) = text.split_once("://") {
            let url = Url::parse(text).map_err(|_| bad("the URL is malformed"))?;
            return match scheme.to_ascii_lowercase().as_str() {
                "http" | "https" => Ok(Self::Url(url.into())),
                "file" => {
                    let path = url
                        .to_file_path()
                        .map_err(|()| bad("a file URL has the form file:///path"))?;
                    Ok(Self::File(path))
                }
                _ => Err(bad("this kind of URL is not supported")),
            };
        }
        match text.split_once('/') {
            None if text == "." || text == ".." => Err(bad("it is no file name")),
            None => Ok(Self::Name(text.into())),
            Some(("", _)) => Err(bad("it is a bare path; write file:///path")),
            Some((_, "")) => Err(bad("there is no path behind the host")),
            Some(_) => match Url::parse(&format!("http://{text}")) {
                Ok(url) if url.has_host() => Ok(Self::Host(text.into())),
                _ => Err(bad("what stands before the first slash is no host")),
            },
        }
    }

    /// The name of this image's directory in the cache; the same for the same name, always.
    #[must_use]
    pub fn key(&self) -> String {
        let kind = match self {
            Self::Url(_) => "url",
            Self::Host(_) => "host",
            Self::File(_) => "file",
            Self::Name(_) => "name",
        };
        let digest = Sha256::digest(format!("{kind}:{}", self.text()));
        digest[..16].iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn text(&self) -> String {
        match self {
            Self::Url(text) | Self::Host(text) | Self::Name(text) => text.clone(),
            Self::File(path) => path.display().to_string(),
        }
    }
}

/// Without a password.
impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(url) => f.write_str(&without_password(url)),
            Self::Host(text) => f.write_str(text.rsplit_once('@').map_or(text, |(_, rest)| rest)),
            Self::File(path) => write!(f, "file://{}", path.display()),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// Where bare names are looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Library {
    /// A directory.
    Dir(PathBuf),
    /// The start of a URL; the name is put behind it.
    Url(String),
}

impl Library {
    /// Reads a library from a configuration: an absolute path, a `file://` or an `http(s)://` URL.
    ///
    /// # Errors
    /// [`Error::BadReference`].
    pub fn parse(text: &str) -> Result<Self, Error> {
        if Path::new(text).is_absolute() {
            return Ok(Self::Dir(text.into()));
        }
        match ImageRef::parse(text)? {
            ImageRef::File(path) => Ok(Self::Dir(path)),
            ImageRef::Url(url) => Ok(Self::Url(url)),
            _ => Err(Error::BadReference {
                name: shorten(text),
                reason: "a library is an absolute path or a URL",
            }),
        }
    }
}

pub(crate) fn without_password(url: &str) -> String {
    match Url::parse(url) {
        Ok(mut parsed) if !parsed.username().is_empty() || parsed.password().is_some() => {
            // These fail only for URLs without a host, which have no user either.
            let _ = parsed.set_username("");
            let _ = parsed.set_password(None);
            parsed.into()
        }
        _ => url.into(),
    }
}

fn shorten(text: &str) -> String {
    text.chars().take(100).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_field() {
        let parse = |text| ImageRef::parse(text).unwrap();
        assert_eq!(
            parse("192.168.6.52:9000/win10vm.ova"),
            ImageRef::Host("192.168.6.52:9000/win10vm.ova".into())
        );
        assert_eq!(
            parse(" packages.vmware.com/photon/4.0/GA/ova/photon.ova "),
            ImageRef::Host("packages.vmware.com/photon/4.0/GA/ova/photon.ova".into())
        );
        assert_eq!(parse("ec-wrkr.ova"), ImageRef::Name("ec-wrkr.ova".into()));
        assert_eq!(parse("https://h/x?a=b"), ImageRef::Url("https://h/x?a=b".into()));
        assert_eq!(parse("file:///srv/x.ova"), ImageRef::File("/srv/x.ova".into()));
        assert_eq!(
            parse("[fd00::1]:80/x.ova"),
            ImageRef::Host("[fd00::1]:80/x.ova".into())
        );
    }

    #[test]
    fn what_is_no_name_says_what_to_write() {
        for text in [
            "",
            "..",
            "/srv/x.ova",
            "ftp://h/x",
            "h/",
            "a b",
            "file://other/x",
            "://",
            "a:b:c/d",
            "x\ny",
        ] {
            let error = ImageRef::parse(text).unwrap_err().to_string();
            assert!(
                error.contains("write a file name in a library"),
                "{text}: {error}"
            );
        }
    }

    #[test]
    fn passwords_are_not_shown() {
        assert_eq!(
            ImageRef::parse("https://u:secret@h/x").unwrap().to_string(),
            "https://h/x"
        );
        assert_eq!(ImageRef::parse("u:secret@h/x").unwrap().to_string(), "h/x");
    }

    #[test]
    fn keys_differ_by_kind() {
        let key = |text| ImageRef::parse(text).unwrap().key();
        assert_eq!(key("h/x"), key(" h/x"));
        assert_ne!(key("h/x"), key("http://h/x"));
        assert_eq!(key("a").len(), 32);
    }
}
