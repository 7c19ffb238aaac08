//! Branches and commits of a repository on our disk.

use std::path::Path;

use serde::Serialize;

use super::{Git, GitError, LOCAL};

/// One commit, as lists show it.
#[derive(Clone, Debug, Serialize, PartialEq, Eq, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Commit {
    /// Its hash.
    pub(crate) commit: String,
    /// The first line of its message.
    pub(crate) subject: String,
    /// Who wrote it.
    pub(crate) author: String,
    /// When it was committed.
    pub(crate) time: String,
}

/// The commit that a branch, tag or hash names in a repository on our disk.
pub(crate) async fn resolve(folder: &Path, reference: &str) -> Result<Option<String>, GitError> {
    if !good_reference(reference) {
        return Err(GitError(format!("{reference:?} is no branch, tag or commit")));
    }
    let git = Git::new();
    for name in [
        format!("refs/heads/{reference}"),
        format!("refs/tags/{reference}"),
        reference.to_owned(),
    ] {
        let found = git
            .run(
                Some(folder),
                &[
                    "rev-parse".as_ref(),
                    "--verify".as_ref(),
                    "--quiet".as_ref(),
                    "--end-of-options".as_ref(),
                    format!("{name}^{{commit}}").as_ref(),
                ],
                LOCAL,
            )
            .await;
        if let Ok(out) = found {
            let commit = String::from_utf8_lossy(&out).trim().to_owned();
            if commit.len() >= 40 {
                return Ok(Some(commit));
            }
        }
    }
    Ok(None)
}

/// The newest commits of a branch, tag or hash; none for an empty repository.
pub(crate) async fn log(folder: &Path, reference: &str, limit: usize) -> Result<Vec<Commit>, GitError> {
    let Some(commit) = resolve(folder, reference).await? else {
        return Ok(Vec::new());
    };
    let out = Git::new()
        .run(
            Some(folder),
            &[
                "log".as_ref(),
                format!("--max-count={limit}").as_ref(),
                "--format=%H%x1f%s%x1f%an%x1f%cI%x1e".as_ref(),
                commit.as_ref(),
            ],
            LOCAL,
        )
        .await?;
    Ok(parse_log(&String::from_utf8_lossy(&out)))
}

fn parse_log(text: &str) -> Vec<Commit> {
    text.split('\x1e')
        .filter_map(|record| {
            let mut fields = record.trim_start().split('\x1f').map(str::to_owned);
            Some(Commit {
                commit: fields.next().filter(|hash| hash.len() >= 40)?,
                subject: fields.next()?,
                author: fields.next()?,
                time: fields.next().map(|time| utc(&time).unwrap_or(time))?,
            })
        })
        .collect()
}

/// A time with an offset, in UTC.
fn utc(time: &str) -> Option<String> {
    let at: jiff::Timestamp = time.parse().ok()?;
    Some(at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

/// What can be a branch, tag or hash, and nothing that git would take for an option or a range.
pub(crate) fn good_reference(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 255
        && !text.starts_with(['-', '/', '.'])
        && !text.contains("..")
        && !text.contains("@{")
        && !text.ends_with(".lock")
        && !text
            .chars()
            .any(|c| c.is_control() || c.is_whitespace() || "~^:?*[\\".contains(c))
}

#[cfg(test)]
mod tests {
    use super::{super::init, *};

    #[test]
    fn references_are_no_options_and_no_ranges() {
        for good in ["main", "release/1.2", "v1.0", "0123abcd"] {
            assert!(good_reference(good), "{good}");
        }
        for bad in [
            "",
            "-x",
            "--upload-pack=sh",
            "a..b",
            "a b",
            "a^",
            "HEAD~1",
            "x:y",
            "../x",
            "a\nb",
            "@{u}",
        ] {
            assert!(!good_reference(bad), "{bad}");
        }
    }

    #[tokio::test]
    async fn a_new_repository_is_empty_and_then_has_commits() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("r.git");
        init(&folder, "main").await.unwrap();
        init(&folder, "main").await.unwrap();
        assert_eq!(log(&folder, "main", 10).await.unwrap(), []);
        let tree = Git::new()
            .run(
                Some(&folder),
                &[
                    "hash-object".as_ref(),
                    "-w".as_ref(),
                    "-t".as_ref(),
                    "tree".as_ref(),
                    "/dev/null".as_ref(),
                ],
                LOCAL,
            )
            .await
            .unwrap();
        let tree = String::from_utf8(tree).unwrap();
        let mut git = Git::new();
        for who in ["AUTHOR", "COMMITTER"] {
            git.env(&format!("GIT_{who}_NAME"), "Ada");
            git.env(&format!("GIT_{who}_EMAIL"), "ada@example.com");
            git.env(&format!("GIT_{who}_DATE"), "2026-01-02T05:04:05+02:00");
        }
        let commit = git
            .run(
                Some(&folder),
                &[
                    "commit-tree".as_ref(),
                    "-m".as_ref(),
                    "Begin".as_ref(),
                    tree.trim().as_ref(),
                ],
                LOCAL,
            )
            .await
            .unwrap();
        let commit = String::from_utf8(commit).unwrap().trim().to_owned();
        git.run(
            Some(&folder),
            &["update-ref".as_ref(), "refs/heads/main".as_ref(), commit.as_ref()],
            LOCAL,
        )
        .await
        .unwrap();
        assert_eq!(
            log(&folder, "main", 10).await.unwrap(),
            [Commit {
                commit,
                subject: "Begin".into(),
                author: "Ada".into(),
                time: "2026-01-02T03:04:05Z".into()
            }]
        );
        assert_eq!(resolve(&folder, "other").await.unwrap(), None);
    }
}
