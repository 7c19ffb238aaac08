//! Addresses of repositories.

use percent_encoding::percent_decode_str;

use super::{Class, GitError};

/// How a repository is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scheme {
    Https,
    Http,
    Ssh,
    File,
}

impl Scheme {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Https => "https",
            Self::Http => "http",
            Self::Ssh => "ssh",
            Self::File => "file",
        }
    }
}

/// An address with its credentials taken out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Url {
    pub(crate) scheme: Scheme,
    /// What git is given. For ssh the user stays in it.
    pub(crate) address: String,
    /// From `https://user:password@…`.
    pub(crate) user: Option<String>,
    /// From `https://user:password@…`.
    pub(crate) password: Option<String>,
}

impl Url {
    /// Reads `https://`, `http://`, `ssh://`, `file://`, an absolute path, or `user@host:path`.
    pub(crate) fn parse(text: &str) -> Result<Self, GitError> {
        let wrong = |why: &str| GitError::new(Class::Spec, format!("spec.url: {why}"));
        let text = text.trim();
        if text.is_empty() {
            return Err(wrong("it is empty"));
        }
        if text.starts_with('-') || text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(wrong("it has characters that no address has"));
        }
        if text.starts_with('/') {
            return Ok(Self::plain(Scheme::File, format!("file://{text}")));
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            return match text.split_once(':') {
                Some((host, path)) if !host.contains('/') && !path.is_empty() && !path.starts_with(':') => {
                    let path = if path.starts_with('/') {
                        path.to_owned()
                    } else {
                        format!("/{path}")
                    };
                    Self::ssh(&format!("{host}{path}"))
                }
                _ => Err(wrong("use https://, ssh://, user@host:path or file://")),
            };
        };
        match scheme.to_ascii_lowercase().as_str() {
            "https" => Self::http(Scheme::Https, rest),
            "http" => Self::http(Scheme::Http, rest),
            "ssh" | "git+ssh" => Self::ssh(rest),
            "file" => Ok(Self::plain(Scheme::File, format!("file://{rest}"))),
            other => Err(wrong(&format!(
                "`{other}://` is not supported; use https://, ssh:// or file://"
            ))),
        }
    }

    fn plain(scheme: Scheme, address: String) -> Self {
        Self {
            scheme,
            address,
            user: None,
            password: None,
        }
    }

    fn http(scheme: Scheme, rest: &str) -> Result<Self, GitError> {
        let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        let (info, host) = authority
            .rsplit_once('@')
            .map_or((None, authority), |(info, host)| (Some(info), host));
        if host.is_empty() {
            return Err(GitError::new(Class::Spec, "spec.url: it has no host"));
        }
        let decode = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let (user, password) = match info.map(|info| info.split_once(':').unwrap_or((info, ""))) {
            Some((user, password)) => (
                Some(decode(user)),
                Some(decode(password)).filter(|p| !p.is_empty()),
            ),
            None => (None, None),
        };
        Ok(Self {
            scheme,
            address: format!("{}://{host}{path}", scheme.name()),
            user,
            password,
        })
    }

    fn ssh(rest: &str) -> Result<Self, GitError> {
        let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        let (user, host) = authority.rsplit_once('@').unwrap_or(("git", authority));
        let user = user.split(':').next().unwrap_or(user);
        // ssh would take such a host for an option.
        if host.is_empty() || host.starts_with('-') || user.starts_with('-') || path.len() < 2 {
            return Err(GitError::new(Class::Spec, "spec.url: use ssh://user@host/path"));
        }
        Ok(Self::plain(Scheme::Ssh, format!("ssh://{user}@{host}{path}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        let ok = |text: &str| {
            Url::parse(text)
                .map(|u| (u.scheme, u.address, u.user, u.password))
                .unwrap()
        };
        let plain = |scheme, address: &str| (scheme, address.to_owned(), None, None);
        assert_eq!(ok("https://h/a.git"), plain(Scheme::Https, "https://h/a.git"));
        assert_eq!(
            ok("https://me:p%40ss@h:8/a"),
            (
                Scheme::Https,
                "https://h:8/a".into(),
                Some("me".into()),
                Some("p@ss".into())
            )
        );
        assert_eq!(ok("git@h:org/a.git"), plain(Scheme::Ssh, "ssh://git@h/org/a.git"));
        assert_eq!(
            ok("ssh://h:2222/a.git"),
            plain(Scheme::Ssh, "ssh://git@h:2222/a.git")
        );
        assert_eq!(ok("/srv/a.git"), plain(Scheme::File, "file:///srv/a.git"));
        assert_eq!(ok("file:///srv/a.git"), plain(Scheme::File, "file:///srv/a.git"));
        for bad in [
            "",
            "-x",
            "ext::sh -c x",
            "ext::x",
            "git://h/a",
            "ssh://-oProxyCommand=x/a",
            "a b",
            "https:///x",
            "h",
        ] {
            assert_eq!(Url::parse(bad).unwrap_err().class, Class::Spec, "{bad}");
        }
    }
}
