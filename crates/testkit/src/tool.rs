//! Running other programs, with their complaint in the error.

use std::ffi::OsStr;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};

/// Runs a command to its end and returns what it wrote to standard output.
///
/// # Errors
/// When it cannot be started or ends with a failure; the message has the command line and what it complained of.
pub fn run(command: &mut Command) -> Result<String> {
    let output = output(command)?;
    if !output.status.success() {
        bail!("{}: {}: {}", line(command), output.status, complaint(&output));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a command to its end, whatever that is.
///
/// # Errors
/// When it cannot be started.
pub fn output(command: &mut Command) -> Result<Output> {
    command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {}", line(command)))
}

/// [`run`] of a program with its arguments.
///
/// # Errors
/// As [`run`].
pub fn tool<S: AsRef<OsStr>>(program: &str, arguments: impl IntoIterator<Item = S>) -> Result<String> {
    run(Command::new(program).args(arguments))
}

/// The last words of a command that failed.
#[must_use]
pub fn complaint(output: &Output) -> String {
    let text = if output.stderr.is_empty() {
        &output.stdout
    } else {
        &output.stderr
    };
    let text = String::from_utf8_lossy(text);
    let text = text.trim();
    let from = text.char_indices().rev().nth(2000).map_or(0, |(at, _)| at);
    text[from..].to_owned()
}

fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

/// A program's end as our own.
///
/// # Errors
/// Never; it fits where errors are.
pub fn exit_code(code: i32) -> Result<std::process::ExitCode> {
    Ok(std::process::ExitCode::from(u8::try_from(code).unwrap_or(1)))
}
