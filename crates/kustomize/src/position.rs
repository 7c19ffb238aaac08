//! Where a field is written.

use serde_json::Value;
use serde_saphyr::granit_parser::ScalarStyle;

use crate::{
    manifest::{Limits, is_list},
    yaml::{self, Kind, Mark, Node},
};

/// The line and column (from 1) of a field such as `spec.networkInterfaces[1].networkName` in a document
/// (from 0) of a file. If the field is not written, the nearest one around it that is. `None` if the file
/// does not parse or has no such document.
///
/// A part in brackets is an index, a key with dots in it (`data[a.b]`, quotes allowed), or, in a list, the
/// value of one of the element's own fields (`switches[vSwitch0]`).
#[must_use]
pub fn position_of(text: &str, document: usize, item: Option<usize>, path: &str) -> Option<(usize, usize)> {
    let root = root(text, document, item)?;
    let (_, mark) = walk(&root, &segments(path));
    Some((mark.line, mark.column))
}

/// Where the text of a scalar stands in its file, to point into a document inside a document: the JSON of
/// a HostConfiguration's `profile: |`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TextStart {
    /// The line of the first line of the text.
    pub line: usize,
    /// The column of the first character of the first line.
    pub column: usize,
    /// The column of the first character of all further lines.
    pub further: usize,
}

impl TextStart {
    /// The line and column in the file of a line and column (from 1) in the text.
    #[must_use]
    pub fn at(&self, line: usize, column: usize) -> (usize, usize) {
        let first = if line <= 1 { self.column } else { self.further };
        (
            self.line + line.saturating_sub(1),
            first + column.saturating_sub(1),
        )
    }
}

/// Where the text of the scalar at a path starts: exact for block scalars (`|`) and for quoted text on one
/// line. `None` if there is no text at the path.
#[must_use]
pub fn block_scalar_start(text: &str, document: usize, item: Option<usize>, path: &str) -> Option<TextStart> {
    let root = root(text, document, item)?;
    let segments = segments(path);
    let (node, key) = exact(&root, &segments)?;
    if !matches!(node.kind, Kind::Scalar(Value::String(_))) {
        return None;
    }
    let mark = node.mark;
    match node.style? {
        ScalarStyle::Literal | ScalarStyle::Folded => {
            // The scanner's mark may be at the header or at the content; the header's line ends in the indicator.
            let header = header_line(text, mark.line)?;
            let first = text
                .lines()
                .enumerate()
                .skip(header)
                .find(|(_, line)| !line.trim().is_empty())?;
            let seen = first.1.len() - first.1.trim_start_matches(' ').len();
            // `|2` says the indentation, relative to the map that the key is in.
            let said = indicator(text.lines().nth(header - 1)?);
            let indent = said.map_or(seen, |n| key.column - 1 + n);
            Some(TextStart {
                line: header + 1,
                column: indent + 1,
                further: indent + 1,
            })
        }
        ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted => Some(TextStart {
            line: mark.line,
            column: mark.column + 1,
            further: 1,
        }),
        ScalarStyle::Plain => Some(TextStart {
            line: mark.line,
            column: mark.column,
            further: 1,
        }),
    }
}

/// The indentation that a block scalar's header gives, if it gives one.
fn indicator(header: &str) -> Option<usize> {
    let at = header.rfind(['|', '>'])?;
    let digit = header[at + 1..].chars().take(2).find_map(|c| c.to_digit(10))?;
    usize::try_from(digit).ok()
}

/// The line (from 1) of the block scalar's header at or before a line.
fn header_line(text: &str, line: usize) -> Option<usize> {
    let lines: Vec<&str> = text.lines().take(line).collect();
    (1..=lines.len()).rev().find(|n| {
        let line = lines[n - 1];
        let code = line.split(" #").next().unwrap_or(line).trim_end();
        let before = code.trim_end_matches(|c: char| c.is_ascii_digit() || c == '+' || c == '-');
        before.ends_with(['|', '>'])
    })
}

fn root(text: &str, document: usize, item: Option<usize>) -> Option<Node> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let documents = yaml::documents("", text, &Limits::default()).ok()?;
    let root = documents.into_iter().nth(document)?.root;
    let Some(item) = item.filter(|_| is_list(&root)) else {
        return Some(root);
    };
    let items = &root.get("items")?.value;
    let Kind::List(items) = &items.kind else {
        return None;
    };
    items.get(item).cloned()
}

/// A part of a path.
#[derive(Debug, PartialEq, Eq)]
enum Segment {
    /// Between dots.
    Name(String),
    /// In brackets.
    Bracket(String),
}

impl Segment {
    fn text(&self) -> &str {
        match self {
            Self::Name(text) | Self::Bracket(text) => text,
        }
    }
}

fn segments(path: &str) -> Vec<Segment> {
    let mut segments = Vec::new();
    let mut rest = path;
    while !rest.is_empty() {
        if let Some(inner) = rest.strip_prefix('[') {
            let end = inner.find(']').unwrap_or(inner.len());
            segments.push(Segment::Bracket(inner[..end].trim_matches(['"', '\'']).into()));
            rest = inner.get(end + 1..).unwrap_or_default();
        } else {
            let end = rest.find(['.', '[']).unwrap_or(rest.len());
            if end > 0 {
                segments.push(Segment::Name(rest[..end].into()));
            }
            rest = &rest[end..];
            rest = rest.strip_prefix('.').unwrap_or(rest);
        }
    }
    segments
}

/// Follows a path as far as it goes: the last node reached and the place to point at.
fn walk<'n>(root: &'n Node, segments: &[Segment]) -> (&'n Node, Mark) {
    let (mut node, mut mark, mut rest) = (root, root.mark, segments);
    while let Some((next, at, used)) = step(node, rest) {
        (node, mark, rest) = (next, at, &rest[used..]);
    }
    (node, mark)
}

/// The node at a path and the place of its key, if all of the path is there.
fn exact<'n>(root: &'n Node, segments: &[Segment]) -> Option<(&'n Node, Mark)> {
    let (mut node, mut mark, mut rest) = (root, root.mark, segments);
    while !rest.is_empty() {
        let (next, at, used) = step(node, rest)?;
        (node, mark, rest) = (next, at, &rest[used..]);
    }
    Some((node, mark))
}

/// One step down: the child, the place of its key, and how many segments it took (a key may have dots).
fn step<'n>(node: &'n Node, segments: &[Segment]) -> Option<(&'n Node, Mark, usize)> {
    let first = segments.first()?;
    match &node.kind {
        Kind::List(items) => {
            let by_index = first.text().parse::<usize>().ok().and_then(|n| items.get(n));
            let by_field = || items.iter().find(|item| has_field(item, first.text()));
            let item = by_index.or_else(by_field)?;
            Some((item, item.mark, 1))
        }
        Kind::Map(_) => {
            let names = segments
                .iter()
                .take_while(|s| matches!(s, Segment::Name(_)))
                .count()
                .max(1);
            (1..=names).find_map(|used| {
                let key = segments[..used]
                    .iter()
                    .map(Segment::text)
                    .collect::<Vec<_>>()
                    .join(".");
                node.get(&key).map(|entry| (&entry.value, entry.mark, used))
            })
        }
        Kind::Scalar(_) => None,
    }
}

fn has_field(item: &Node, wanted: &str) -> bool {
    let Kind::Map(entries) = &item.kind else {
        return false;
    };
    entries
        .iter()
        .any(|e| matches!(&e.value.kind, Kind::Scalar(Value::String(text)) if text == wanted))
}
