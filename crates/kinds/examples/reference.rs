//! Prints the reference of the kinds as Markdown.

use std::io::{self, Write as _};

fn main() -> io::Result<()> {
    let page = kinds::reference::markdown(&kinds::registry::Registry::builtin());
    io::stdout().write_all(page.as_bytes())
}
