//! Which files of a repository are left out: Flux's default exclusions, `.sourceignore` files and
//! `spec.ignore` of a GitRepository, all in the syntax of `.gitignore`.

/// Always left out.
const VCS: &str = ".git/\n.gitignore\n.gitmodules\n.gitattributes\n";

/// Left out unless the repository or the GitRepository gives patterns of its own.
const DEFAULTS: &str = "*.jpg\n*.jpeg\n*.gif\n*.png\n*.wmv\n*.flv\n*.tar.gz\n*.zip\n\
    .github/\n.circleci/\n.travis.yml\n.gitlab-ci.yml\nappveyor.yml\n.drone.yml\ncloudbuild.yaml\n\
    codeship-services.yml\ncodeship-steps.yml\n**/.goreleaser.yml\n**/.sops.yaml\n**/.flux.yaml\n";

/// An ordered list of patterns; the last that matches wins.
#[derive(Clone, Debug, Default)]
pub struct Ignore {
    patterns: Vec<Pattern>,
    own: bool,
}

#[derive(Clone, Debug)]
struct Pattern {
    /// The folder that the pattern was given in, empty for the root.
    folder: String,
    /// Parts between slashes; `**` stands for any number of folders.
    parts: Vec<String>,
    negated: bool,
    folders_only: bool,
}

impl Ignore {
    /// No patterns but the defaults.
    #[must_use]
    pub fn new() -> Self {
        let mut ignore = Self::default();
        ignore.extend("", VCS);
        ignore.extend("", DEFAULTS);
        ignore
    }

    /// Adds the patterns of a text that stands in a folder. The first patterns of the user's own take the
    /// place of the defaults.
    pub fn add(&mut self, folder: &str, text: &str) {
        if !self.own {
            *self = Self::default();
            self.own = true;
            self.extend("", VCS);
        }
        self.extend(folder, text);
    }

    fn extend(&mut self, folder: &str, text: &str) {
        self.patterns
            .extend(text.lines().filter_map(|line| Pattern::parse(folder, line)));
    }

    /// Whether a path is left out by itself; the caller doesn't go into folders that are.
    #[must_use]
    pub fn matches(&self, path: &str, is_folder: bool) -> bool {
        let last = self.patterns.iter().rev().find(|p| p.matches(path, is_folder));
        last.is_some_and(|p| !p.negated)
    }
}

impl Pattern {
    fn parse(folder: &str, line: &str) -> Option<Self> {
        let line = line.trim_end_matches('\r');
        // A trailing space counts only behind a backslash.
        let line = if line.ends_with("\\ ") {
            line
        } else {
            line.trim_end_matches(' ')
        };
        if line.is_empty() || line.starts_with('#') {
            return None;
        }
        let (negated, line) = line.strip_prefix('!').map_or((false, line), |rest| (true, rest));
        let (folders_only, line) = line.strip_suffix('/').map_or((false, line), |rest| (true, rest));
        let anchored = line.contains('/');
        let mut parts: Vec<String> = line
            .trim_start_matches('/')
            .split('/')
            .map(String::from)
            .collect();
        if !anchored {
            parts.insert(0, "**".into());
        }
        Some(Self {
            folder: folder.into(),
            parts,
            negated,
            folders_only,
        })
    }

    fn matches(&self, path: &str, is_folder: bool) -> bool {
        if self.folders_only && !is_folder {
            return false;
        }
        let inside = if self.folder.is_empty() {
            Some(path)
        } else {
            path.strip_prefix(&self.folder)
                .and_then(|rest| rest.strip_prefix('/'))
        };
        let Some(inside) = inside else { return false };
        let names: Vec<&str> = inside.split('/').collect();
        match_parts(&self.parts, &names)
    }
}

fn match_parts(parts: &[String], names: &[&str]) -> bool {
    match (parts.split_first(), names.split_first()) {
        (None, None) => true,
        (None, Some(_)) => false,
        (Some((part, [])), _) if part == "**" => !names.is_empty(),
        (Some((part, rest)), _) if part == "**" => (0..=names.len()).any(|n| match_parts(rest, &names[n..])),
        (Some((part, rest)), Some((name, names))) => {
            glob(part.as_bytes(), name.as_bytes()) && match_parts(rest, names)
        }
        (Some(_), None) => false,
    }
}

/// `*`, `?`, `[a-z]`, `[!a]` and `\x` within one name, without backtracking into more than one star.
pub(crate) fn glob(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    loop {
        let matched = match pattern.get(p) {
            None => n == name.len(),
            Some(b'*') => {
                star = Some((p + 1, n));
                p += 1;
                continue;
            }
            Some(_) => match one(&pattern[p..], name.get(n).copied()) {
                Some(used) => {
                    (p, n) = (p + used, n + 1);
                    continue;
                }
                None => false,
            },
        };
        if matched {
            return true;
        }
        match star {
            Some((after, taken)) if taken < name.len() => {
                (p, n) = (after, taken + 1);
                star = Some((after, taken + 1));
            }
            _ => return false,
        }
    }
}

/// Whether the first unit of a pattern fits a byte; gives the unit's length.
fn one(pattern: &[u8], byte: Option<u8>) -> Option<usize> {
    let byte = byte?;
    match pattern {
        [b'?', ..] => Some(1),
        [b'\\', escaped, ..] => (*escaped == byte).then_some(2),
        [b'[', rest @ ..] => {
            let (negated, set) = match rest {
                [b'!' | b'^', set @ ..] => (true, set),
                set => (false, set),
            };
            // A bracket that comes first is a member of the set.
            let end = set.iter().skip(1).position(|b| *b == b']').map(|at| at + 1);
            let Some(end) = end else {
                return (byte == b'[').then_some(1);
            };
            let members = &set[..end];
            let mut found = false;
            let mut at = 0;
            while at < members.len() {
                if members.get(at + 1) == Some(&b'-') && at + 2 < members.len() {
                    found |= (members[at]..=members[at + 2]).contains(&byte);
                    at += 3;
                } else {
                    found |= members[at] == byte;
                    at += 1;
                }
            }
            let length = pattern.len() - set.len() + end + 1;
            (found != negated).then_some(length)
        }
        [literal, ..] => (*literal == byte).then_some(1),
        [] => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ignored(patterns: &str, path: &str) -> bool {
        let mut ignore = Ignore::new();
        ignore.add("", patterns);
        let parts: Vec<&str> = path.split('/').collect();
        (1..=parts.len()).any(|n| ignore.matches(&parts[..n].join("/"), n < parts.len()))
    }

    #[test]
    fn patterns_mean_what_they_mean_to_git() {
        let dir = tempfile::tempdir().unwrap();
        let git = |args: &[&str]| {
            std::process::Command::new("git")
                .current_dir(dir.path())
                .args(args)
                .output()
                .unwrap()
        };
        assert!(git(&["init", "-q"]).status.success());
        let paths = [
            "a.yaml",
            "b/a.yaml",
            "b/c/a.yaml",
            "b/c/d.md",
            "deploy/x.yaml",
            "deploy/sub/x.md",
            "other/x.yaml",
            "*x",
            "[x",
            "foo",
            "foo/bar",
            "x/foo/bar",
            "b/foo.txt",
            "abc",
            "a1c",
            "a-c",
            "x/y/z/w",
            "x/z",
        ];
        let patterns = [
            "*.yaml",
            "/a.yaml",
            "b/",
            "b/c",
            "/*\n!/deploy\n/deploy/**/*.md",
            "**/c/",
            "b/**",
            "foo",
            "foo/",
            "/foo",
            "foo/bar",
            "a?c",
            "a[0-9]c",
            "a[!0-9]c",
            "a[b-]c",
            "\\*x",
            "*.yaml\n!a.yaml",
            "x/**/z",
            "x/*/z",
            "*/foo*",
            "# c\n\n*.md   ",
            "\\[x",
            "!foo",
            "**",
            "**/foo/bar",
        ];
        for pattern in patterns {
            std::fs::write(dir.path().join(".gitignore"), pattern).unwrap();
            for path in paths {
                let real = git(&["check-ignore", "-q", "--no-index", path]).status.code() == Some(0);
                assert_eq!(ignored(pattern, path), real, "{pattern:?} on {path:?}");
            }
        }
    }

    #[test]
    fn own_patterns_take_the_place_of_the_defaults() {
        let mut ignore = Ignore::new();
        assert!(ignore.matches(".github", true) && ignore.matches("x/logo.png", false));
        assert!(!ignore.matches("azure-pipelines.yml", false));
        ignore.add("", "*.md");
        assert!(
            !ignore.matches(".github", true) && ignore.matches("a.md", false) && ignore.matches(".git", true)
        );
        ignore.add("sub", "/a.yaml");
        assert!(ignore.matches("sub/a.yaml", false) && !ignore.matches("a.yaml", false));
    }
}
