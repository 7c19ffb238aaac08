//! Finding out what commit a reference means, and getting it.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use kinds::flux::GitRef;
use semver::{Version, VersionReq};

use super::{Class, Git, GitError, url::Url};

/// A commit and the name by which it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// `main`, `v1.2.0`, a full reference, or empty for a bare commit.
    pub(crate) name: String,
    /// The full reference to fetch; empty for a bare commit.
    pub(crate) reference: String,
    /// The commit, hexadecimal. For an annotated tag this is the tag's own identifier until it is fetched.
    pub(crate) commit: String,
}

impl Target {
    /// The revision as Flux writes it.
    pub(crate) fn revision(&self) -> String {
        let hash = if self.commit.len() == 64 { "sha256" } else { "sha1" };
        if self.name.is_empty() {
            format!("{hash}:{}", self.commit)
        } else {
            format!("{}@{hash}:{}", self.name, self.commit)
        }
    }
}

/// The reference of the commit that is served from a repository.
pub(crate) const ARTIFACT: &str = "refs/selvedge/artifact";
const FETCHED: &str = "refs/selvedge/fetched";
/// More packs than this are joined into one.
const PACKS: usize = 12;
/// How far back it is looked for the old commit after a branch moved by more than one.
const LOOK_BACK: &str = "--depth=32";

/// A bare repository on this host.
#[derive(Clone, Debug)]
pub(crate) struct Repository {
    pub(crate) path: PathBuf,
}

impl Repository {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Makes the repository if it is not there.
    pub(crate) async fn open(&self, git: &Git, limit: Duration) -> Result<(), GitError> {
        if self.path.join("HEAD").is_file() && self.path.join("objects").is_dir() {
            // A lock that a killed git left; ours is the only one in here.
            for lock in ["shallow.lock", "packed-refs.lock", "config.lock", "HEAD.lock"] {
                let _ = fs::remove_file(self.path.join(lock));
            }
            let _ = fs::remove_file(self.path.join(format!("{ARTIFACT}.lock")));
            let _ = fs::remove_file(self.path.join(format!("{FETCHED}.lock")));
            self.sweep();
            return Ok(());
        }
        let failed =
            |e: io::Error| GitError::new(Class::Other, format!("can't make {}: {e}", self.path.display()));
        fs::create_dir_all(&self.path).map_err(failed)?;
        git.run(&self.path, &["init", "--quiet", "--bare", "--template="], limit)
            .await?;
        Ok(())
    }

    /// Removes what a fetch that was cut off left half written.
    fn sweep(&self) {
        let entries = fs::read_dir(self.path.join("objects/pack"))
            .into_iter()
            .flatten()
            .flatten();
        for entry in entries.filter(|e| e.file_name().to_string_lossy().starts_with("tmp_")) {
            let _ = fs::remove_file(entry.path());
        }
    }

    /// Removes everything, for a repository that is damaged.
    pub(crate) fn remove(&self) -> Result<(), GitError> {
        fs::remove_dir_all(&self.path)
            .or_else(|e| {
                if e.kind() == io::ErrorKind::NotFound {
                    Ok(())
                } else {
                    Err(e)
                }
            })
            .map_err(|e| {
                GitError::new(
                    Class::Other,
                    format!("can't remove the damaged {}: {e}", self.path.display()),
                )
            })
    }

    /// The commit that was fetched last and is whole, if any.
    pub(crate) async fn artifact(&self, git: &Git, limit: Duration) -> Option<String> {
        self.commit_of(git, ARTIFACT, limit).await
    }

    async fn commit_of(&self, git: &Git, reference: &str, limit: Duration) -> Option<String> {
        let wanted = format!("{reference}^{{commit}}");
        let out = git
            .run(&self.path, &["rev-parse", "--verify", "--quiet", &wanted], limit)
            .await
            .ok()?;
        let commit = String::from_utf8_lossy(&out).trim().to_owned();
        // The object itself must be there, not only its name.
        let tree = format!("{commit}^{{tree}}");
        git.run(&self.path, &["cat-file", "-e", &tree], limit)
            .await
            .ok()?;
        Some(commit)
    }

    /// Fetches a target, one commit deep, and gives the commit.
    pub(crate) async fn fetch(
        &self,
        git: &Git,
        url: &Url,
        target: &Target,
        limit: Duration,
    ) -> Result<String, GitError> {
        let source = if target.reference.is_empty() {
            &target.commit
        } else {
            &target.reference
        };
        let spec = format!("+{source}:{FETCHED}");
        let args = [
            "fetch",
            "--quiet",
            "--depth=1",
            "--no-tags",
            "--no-write-fetch-head",
            "--no-auto-gc",
            "--",
            &url.address,
            &spec,
        ];
        git.run(&self.path, &args, limit).await?;
        self.commit_of(git, FETCHED, limit)
            .await
            .ok_or_else(|| GitError::new(Class::Reference, format!("`{source}` is no commit")))
    }

    /// Fetches a commit from a server that gives out only branches and tags: the whole branch, or everything.
    pub(crate) async fn fetch_deep(
        &self,
        git: &Git,
        url: &Url,
        branch: Option<&str>,
        commit: &str,
        limit: Duration,
    ) -> Result<String, GitError> {
        let spec = match branch {
            Some(branch) => format!("+refs/heads/{branch}:refs/selvedge/deep/{branch}"),
            None => "+refs/heads/*:refs/selvedge/deep/*".into(),
        };
        let args = [
            "fetch",
            "--quiet",
            "--unshallow",
            "--no-tags",
            "--no-write-fetch-head",
            "--no-auto-gc",
            "--",
            &url.address,
            &spec,
        ];
        let mut done = git.run(&self.path, &args, limit).await;
        if done
            .as_ref()
            .is_err_and(|e| e.message.contains("--unshallow on a complete repository"))
        {
            let args: Vec<&str> = args.into_iter().filter(|a| *a != "--unshallow").collect();
            done = git.run(&self.path, &args, limit).await;
        }
        done?;
        let found = self.commit_of(git, commit, limit).await;
        let found = found.ok_or_else(|| {
            GitError::new(
                Class::Reference,
                format!("the commit {commit} is not in the repository"),
            )
        })?;
        git.run(&self.path, &["update-ref", FETCHED, &found], limit)
            .await?;
        Ok(found)
    }

    /// Makes a fetched commit the one that is served.
    pub(crate) async fn publish(&self, git: &Git, commit: &str, limit: Duration) -> Result<(), GitError> {
        git.run(&self.path, &["update-ref", ARTIFACT, commit], limit)
            .await
            .map(drop)
    }

    /// Whether a branch went on from `old` to `new`. False if it was rewritten, or moved by more commits than
    /// are looked at. Fetches a little more history if it must.
    pub(crate) async fn goes_on(
        &self,
        git: &Git,
        url: &Url,
        target: &Target,
        old: &str,
        new: &str,
        limit: Duration,
    ) -> bool {
        let parents = git
            .run(&self.path, &["cat-file", "commit", new], limit)
            .await
            .unwrap_or_default();
        let wanted = format!("parent {old}");
        if String::from_utf8_lossy(&parents)
            .lines()
            .take_while(|l| !l.is_empty())
            .any(|l| l == wanted)
        {
            return true;
        }
        let spec = format!("+{}:{FETCHED}", target.reference);
        let args = [
            "fetch",
            "--quiet",
            LOOK_BACK,
            "--no-tags",
            "--no-write-fetch-head",
            "--no-auto-gc",
            "--",
            &url.address,
            &spec,
        ];
        // Without the history the answer is no, which only makes an event.
        let _ = git.run(&self.path, &args, limit).await;
        git.run(&self.path, &["merge-base", "--is-ancestor", old, new], limit)
            .await
            .is_ok()
    }

    /// Joins packs and drops what no reference needs, now and then.
    pub(crate) async fn tidy(&self, git: &Git, limit: Duration) -> Result<(), GitError> {
        let packs = fs::read_dir(self.path.join("objects/pack"))
            .map(|entries| {
                entries
                    .flatten()
                    .filter(|e| e.file_name().to_string_lossy().ends_with(".pack"))
                    .count()
            })
            .unwrap_or_default();
        if packs <= PACKS {
            return Ok(());
        }
        let _ = git.run(&self.path, &["update-ref", "-d", FETCHED], limit).await;
        git.run(&self.path, &["gc", "--quiet", "--prune=now"], limit)
            .await
            .map(drop)
    }
}

/// Asks the server what commit a reference means.
pub(crate) async fn resolve(
    git: &Git,
    repository: &Repository,
    url: &Url,
    reference: &GitRef,
    limit: Duration,
) -> Result<Target, GitError> {
    fn given(text: &Option<String>) -> Option<&str> {
        text.as_deref().map(str::trim).filter(|t| !t.is_empty())
    }
    let branch = given(&reference.branch);
    for name in [branch, given(&reference.tag), given(&reference.name)]
        .into_iter()
        .flatten()
    {
        plain_name(name)?;
    }
    if let Some(commit) = given(&reference.commit) {
        let commit = commit.to_ascii_lowercase();
        let whole = matches!(commit.len(), 40 | 64) && commit.bytes().all(|b| b.is_ascii_hexdigit());
        if !whole {
            return Err(GitError::new(
                Class::Spec,
                format!("spec.ref.commit: `{commit}` is no whole commit hash"),
            ));
        }
        return Ok(Target {
            name: branch.unwrap_or_default().into(),
            reference: String::new(),
            commit,
        });
    }
    if let Some(name) = given(&reference.name) {
        let found = list(git, repository, url, &[name], limit).await?;
        return pick(&found, name, name);
    }
    if let Some(range) = given(&reference.semver) {
        let found = list(git, repository, url, &["refs/tags/*"], limit).await?;
        return newest(&found, range);
    }
    if let Some(tag) = given(&reference.tag) {
        let full = format!("refs/tags/{tag}");
        let found = list(git, repository, url, &[&full, &format!("{full}^{{}}")], limit).await?;
        return pick(&found, &full, tag);
    }
    let branch = branch.unwrap_or("master");
    let full = format!("refs/heads/{branch}");
    let found = list(git, repository, url, &[&full], limit).await?;
    if found.contains_key(&full) {
        return pick(&found, &full, branch);
    }
    // Say what there is: mostly the branch is called otherwise.
    let all = list(git, repository, url, &["refs/heads/*"], limit).await?;
    if all.contains_key(&full) {
        // It was pushed in between.
        return pick(&all, &full, branch);
    }
    let names: Vec<&str> = all
        .keys()
        .filter_map(|r| r.strip_prefix("refs/heads/"))
        .take(10)
        .collect();
    Err(match names.as_slice() {
        [] => GitError::new(
            Class::Empty,
            format!("{} is empty: push the branch `{branch}`", url.address),
        ),
        names => GitError::new(
            Class::Reference,
            format!(
                "there is no branch `{branch}` in {}; there are: {}",
                url.address,
                names.join(", ")
            ),
        ),
    })
}

/// Names that mean something to git beyond a name are refused.
fn plain_name(name: &str) -> Result<(), GitError> {
    let bad = name.starts_with('-')
        || name.contains("..")
        || name.contains("@{")
        || name.ends_with('/')
        || name.ends_with(".lock")
        || name
            .chars()
            .any(|c| c.is_control() || c.is_whitespace() || "~^:?*[\\".contains(c));
    if bad {
        return Err(GitError::new(
            Class::Spec,
            format!("spec.ref: `{name}` is no name of a branch or tag"),
        ));
    }
    Ok(())
}

async fn list(
    git: &Git,
    repository: &Repository,
    url: &Url,
    patterns: &[&str],
    limit: Duration,
) -> Result<BTreeMap<String, String>, GitError> {
    let mut args = vec!["ls-remote", "--quiet", "--", &url.address];
    args.extend(patterns);
    let out = git.run(&repository.path, &args, limit).await?;
    let text = String::from_utf8_lossy(&out);
    let pairs = text.lines().filter_map(|line| line.split_once('\t'));
    Ok(pairs
        .map(|(commit, name)| (name.to_owned(), commit.to_owned()))
        .collect())
}

fn pick(found: &BTreeMap<String, String>, full: &str, name: &str) -> Result<Target, GitError> {
    // A tag object's commit is listed beside it.
    let commit = found.get(&format!("{full}^{{}}")).or_else(|| found.get(full));
    let commit = commit.ok_or_else(|| {
        GitError::new(
            Class::Reference,
            format!("there is no `{name}` in the repository"),
        )
    })?;
    Ok(Target {
        name: name.into(),
        reference: full.into(),
        commit: commit.clone(),
    })
}

fn newest(found: &BTreeMap<String, String>, range: &str) -> Result<Target, GitError> {
    let wanted = requirement(range)?;
    let tags = found
        .keys()
        .filter_map(|full| full.strip_prefix("refs/tags/"))
        .filter(|tag| !tag.ends_with("^{}"));
    let mut versions: Vec<(Version, &str)> = tags
        .filter_map(|tag| Some((Version::parse(tag.strip_prefix('v').unwrap_or(tag)).ok()?, tag)))
        .filter(|(version, _)| wanted.iter().any(|w| w.matches(version)))
        .collect();
    versions.sort();
    let Some((_, tag)) = versions.pop() else {
        return Err(GitError::new(
            Class::Reference,
            format!("no tag is a version in `{range}`"),
        ));
    };
    pick(found, &format!("refs/tags/{tag}"), tag)
}

/// `>=1.0.0 <2.0.0`, `1.x`, `~1.2`, `^1`, `1.2 || 2.x`, `>=1.0.0-0`; a bare version means exactly that one.
fn requirement(range: &str) -> Result<Vec<VersionReq>, GitError> {
    let wrong = || {
        GitError::new(
            Class::Spec,
            format!("spec.ref.semver: `{range}` is no range of versions"),
        )
    };
    range
        .split("||")
        .map(|part| {
            let mut words: Vec<String> = Vec::new();
            for word in part.split([' ', ',']).filter(|w| !w.is_empty()) {
                // An operator may stand apart from its version.
                match words.last_mut() {
                    Some(last) if last.chars().all(|c| "<>=~^!".contains(c)) => last.push_str(word),
                    _ => words.push(word.to_owned()),
                }
            }
            let words: Vec<String> = words.iter().map(|word| comparator(word)).collect();
            let text = if words.is_empty() {
                "*".to_owned()
            } else {
                words.join(", ")
            };
            VersionReq::parse(&text).map_err(|_| wrong())
        })
        .collect()
}

fn comparator(word: &str) -> String {
    let at = word.find(|c: char| !"<>=~^!".contains(c)).unwrap_or(word.len());
    let (operator, version) = word.split_at(at);
    let version = version
        .strip_prefix('v')
        .unwrap_or(version)
        .replace(['X', 'x'], "*");
    match operator {
        "" if version.contains('*') => version,
        // A bare whole version is that version; a shorter one means all below it.
        "" if version.split('.').count() >= 3 => format!("={version}"),
        "" => format!("~{version}"),
        "==" => format!("={version}"),
        "=>" => format!(">={version}"),
        "=<" => format!("<={version}"),
        _ => format!("{operator}{version}"),
    }
}

/// The place of a repository under the state folder. Neither part can hold an underscore.
pub(crate) fn folder(state: &Path, namespace: &str, name: &str) -> PathBuf {
    state.join("git").join(format!("{namespace}_{name}.git"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_tag_in_a_range() {
        let tags = ["v1.0.0", "1.2.3", "v1.10.0", "v2.0.0-rc.1", "v2.0.0", "junk"];
        let found: BTreeMap<String, String> = tags
            .iter()
            .map(|t| (format!("refs/tags/{t}"), format!("{t:0>40}")))
            .collect();
        for (range, tag) in [
            ("1.x", Some("v1.10.0")),
            ("*", Some("v2.0.0")),
            (">=1.0.0 <1.10.0", Some("1.2.3")),
            (">= 1.0.0, < 1.10", Some("1.2.3")),
            ("~1.2", Some("1.2.3")),
            ("^1", Some("v1.10.0")),
            ("1.0.0", Some("v1.0.0")),
            ("1.2", Some("1.2.3")),
            ("=1.10.0 || 1.0.0", Some("v1.10.0")),
            (">=2.0.0-0 <2.0.0", Some("v2.0.0-rc.1")),
            ("3.x", None),
        ] {
            assert_eq!(
                newest(&found, range).ok().map(|t| t.name).as_deref(),
                tag,
                "{range}"
            );
        }
        assert_eq!(newest(&found, "nonsense!").unwrap_err().class, Class::Spec);
    }

    #[test]
    fn names_with_a_meaning_are_refused() {
        for bad in ["-x", "a..b", "a:b", "a b", "a*", "a^", "@{-1}", "x.lock"] {
            assert!(plain_name(bad).is_err(), "{bad}");
        }
        for good in ["main", "feature/x", "v1.0", "@"] {
            assert!(plain_name(good).is_ok(), "{good}");
        }
    }
}
