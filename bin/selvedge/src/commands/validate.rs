//! `selvedge validate`: everything that is wrong with a site folder, before it is pushed.

mod check;
mod folder;
mod host;

use std::{path::PathBuf, process::ExitCode};

use serde::Serialize;

use crate::output::Output;
use check::check;

#[derive(clap::Args)]
#[command(after_help = "Errors make the exit code 1; warnings and notices do not.\n\n\
    Examples:\n  selvedge validate ./site\n  selvedge validate sites/shop-17 -o json\n  selvedge validate . --path sites/shop-17")]
pub(crate) struct Args {
    /// The folder; a repository's root if --path is given.
    folder: PathBuf,
    /// The site's folder inside it, when the site uses files from elsewhere in the repository.
    #[arg(long, default_value = "")]
    path: String,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Level {
    /// The host would refuse it.
    Error,
    /// The host takes it, but it is probably not what was meant.
    Warning,
    /// Worth knowing.
    Notice,
}

/// Something found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    pub(crate) level: Level,
    pub(crate) file: String,
    /// From 1; 0 if it has none.
    pub(crate) line: usize,
    /// From 1; 0 if it has none.
    pub(crate) column: usize,
    /// The field; empty if none.
    pub(crate) field: String,
    /// Names the object first, for example `VirtualMachine shop/till`.
    pub(crate) message: String,
}

/// What a folder is like.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    /// How many objects there are.
    pub(crate) objects: usize,
    pub(crate) findings: Vec<Finding>,
    /// Files that are no manifests, each with why.
    pub(crate) skipped: Vec<(String, String)>,
}

impl Report {
    fn errors(&self) -> usize {
        self.findings
            .iter()
            .filter(|finding| finding.level == Level::Error)
            .count()
    }
}

pub(crate) fn run(args: &Args, output: Output) -> anyhow::Result<ExitCode> {
    let report = check(&args.folder, &args.path)?;
    output.print(&report, || as_text(&report))?;
    Ok(if report.errors() == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn as_text(report: &Report) -> String {
    let mut lines: Vec<String> = report.findings.iter().map(ToString::to_string).collect();
    lines.extend(
        report
            .skipped
            .iter()
            .map(|(file, why)| format!("{file}: skipped: {why}")),
    );
    let count = |level| {
        report
            .findings
            .iter()
            .filter(|finding| finding.level == level)
            .count()
    };
    lines.push(format!(
        "{}, {}, {}, {}, {} skipped",
        plural(report.objects, "object"),
        plural(count(Level::Error), "error"),
        plural(count(Level::Warning), "warning"),
        plural(count(Level::Notice), "notice"),
        plural(report.skipped.len(), "file"),
    ));
    lines.join("\n")
}

fn plural(count: usize, noun: &str) -> String {
    if count == 1 {
        format!("1 {noun}")
    } else {
        format!("{count} {noun}s")
    }
}

impl std::fmt::Display for Finding {
    /// `file:line:column: error: field: message`, which editors can jump to.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.file)?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        if self.column > 0 {
            write!(f, ":{}", self.column)?;
        }
        let level = match self.level {
            Level::Error => "error",
            Level::Warning => "warning",
            Level::Notice => "notice",
        };
        write!(f, ": {level}")?;
        for part in [&self.field, &self.message] {
            if !part.is_empty() {
                write!(f, ": {part}")?;
            }
        }
        Ok(())
    }
}
