//! A real repository, for plans and rollouts.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::Command;

use fleet::plan::{Fetched, Source, Wanted};

/// A repository that is written with `git fast-import`, as fast as that is.
pub(crate) struct Repo {
    dir: tempfile::TempDir,
}

impl Repo {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let repo = Self { dir };
        repo.git(&["init", "-q", "--bare", "-b", "main", "."]);
        repo
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    fn git(&self, args: &[&str]) -> String {
        let output = Command::new("git")
            .args(args)
            .current_dir(self.path())
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{args:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// A commit on main with these files changed; empty content deletes.
    pub(crate) fn commit(&self, files: &[(String, String)]) -> String {
        use std::io::Write as _;
        let parent = Command::new("git")
            .args(["rev-parse", "-q", "--verify", "main"])
            .current_dir(self.path())
            .output();
        let mut script =
            String::from("commit refs/heads/main\ncommitter T <t@example.com> 1700000000 +0000\ndata 1\nx\n");
        if parent.unwrap().status.success() {
            script.push_str("from refs/heads/main^0\n");
        }
        for (path, content) in files {
            if content.is_empty() {
                script.push_str(&format!("D {path}\n"));
            } else {
                script.push_str(&format!(
                    "M 100644 inline {path}\ndata {}\n{content}\n",
                    content.len()
                ));
            }
        }
        let mut child = Command::new("git")
            .args(["fast-import", "--quiet", "--force"])
            .current_dir(self.path())
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success());
        self.git(&["rev-parse", "main"])
    }
}

pub(crate) fn files(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter()
        .map(|(path, content)| ((*path).to_owned(), (*content).to_owned()))
        .collect()
}

pub(crate) fn config(value: &str) -> String {
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: settings\n  namespace: shop\ndata:\n  greeting: {value}\n"
    )
}

/// A source that has it: folder, the branch's commit, the commit that is wanted.
pub(crate) struct Here(pub(crate) PathBuf, pub(crate) String, pub(crate) String);

impl Source for Here {
    fn fetch<'s>(
        &'s self,
        wanted: &'s Wanted,
    ) -> Pin<Box<dyn Future<Output = Result<Fetched, String>> + Send + 's>> {
        Box::pin(async move {
            if wanted.to == "gone" {
                return Err("there is no branch gone".into());
            }
            Ok(Fetched {
                folder: self.0.clone(),
                from: self.1.clone(),
                to: self.2.clone(),
            })
        })
    }
}
