//! Where in a JSON text something is: from a parser's offset to a path, and from a path to line and column.

use serde_json::Value;

/// Line and column in a text, both from 1; columns count characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Line.
    pub line: usize,
    /// Column.
    pub column: usize,
}

/// One step from a JSON value into it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Field(String),
    Entry(usize),
}

/// Deepest nesting that is followed; as deep as the parser goes.
const DEEPEST: usize = 128;

/// The position of a byte offset.
pub(crate) fn position(text: &str, offset: usize) -> Position {
    let mut end = offset.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let before = &text[..end];
    let start = before.rfind('\n').map_or(0, |at| at + 1);
    Position {
        line: before.matches('\n').count() + 1,
        column: before[start..].chars().count() + 1,
    }
}

/// The byte offset of the parser's line and column (columns count bytes from 1, and the column of a failure is
/// that of the last byte read).
pub(crate) fn offset(text: &str, line: usize, column: usize) -> usize {
    let start: usize = text
        .split_inclusive('\n')
        .take(line.saturating_sub(1))
        .map(str::len)
        .sum();
    (start + column.saturating_sub(1)).min(text.len())
}

/// The innermost value that is open at an offset.
pub(crate) fn path_at(text: &str, offset: usize) -> Vec<Step> {
    let mut path = Vec::new();
    scan(text, &mut |steps, at| {
        if at <= offset {
            path = steps.to_vec();
        }
        at <= offset
    });
    path
}

/// The offset of the value at a path.
pub(crate) fn find(text: &str, wanted: &[Step]) -> Option<usize> {
    let mut found = None;
    scan(text, &mut |steps, at| {
        if steps == wanted {
            found = Some(at);
        }
        found.is_none()
    });
    found
}

/// A path as text.
pub(crate) fn show(path: &[Step]) -> String {
    path.iter().fold(String::new(), |text, step| match step {
        Step::Field(name) => kinds::host::field_path(&text, name),
        Step::Entry(index) => format!("{text}[{index}]"),
    })
}

/// The steps to the place in a value that a path of [`kinds::host::check`] names, as far as they exist.
pub(crate) fn steps(value: &Value, wanted: &str) -> Vec<Step> {
    let (mut steps, mut path, mut value, mut schema) =
        (Vec::new(), String::new(), value, Some(kinds::host::schema()));
    for _ in 0..DEEPEST {
        let leads = |to: &str| {
            wanted == to
                || wanted
                    .strip_prefix(to)
                    .is_some_and(|rest| rest.starts_with(['.', '[']))
        };
        let next = match value {
            Value::Object(map) => map.iter().find_map(|(name, inner)| {
                let to = kinds::host::field_path(&path, name);
                let schema = schema.and_then(|s| s.get("properties")?.get(name));
                leads(&to).then(|| (Step::Field(name.clone()), to, inner, schema))
            }),
            Value::Array(items) => {
                let key = kinds::host::list_key(schema, items);
                let schema = schema.and_then(|s| s.get("items"));
                items.iter().enumerate().find_map(|(index, inner)| {
                    let to = kinds::host::entry_path(&path, key, index, inner);
                    leads(&to).then_some((Step::Entry(index), to, inner, schema))
                })
            }
            _ => None,
        };
        let Some((step, to, inner, inner_schema)) = next else {
            break;
        };
        steps.push(step);
        (path, value, schema) = (to, inner, inner_schema);
    }
    steps
}

/// Goes through a text and tells `visit` the path and offset of every key and value, until `visit` says no or the
/// text is no JSON any more.
fn scan(text: &str, visit: &mut dyn FnMut(&[Step], usize) -> bool) {
    let bytes = text.as_bytes();
    let (mut path, mut at): (Vec<Step>, usize) = (Vec::new(), 0);
    // For each open object or array: whether it is an object, and whether a key comes next.
    let mut open: Vec<(bool, bool)> = Vec::new();
    if !visit(&path, at) {
        return;
    }
    while at < bytes.len() {
        let key_next = open.last().is_some_and(|(_, key)| *key);
        match bytes[at] {
            b'"' => {
                if !key_next && !visit(&path, at) {
                    return;
                }
                let Some(end) = string_end(bytes, at) else { return };
                if key_next {
                    let Ok(name) = serde_json::from_str::<String>(&text[at..=end]) else {
                        return;
                    };
                    path.push(Step::Field(name));
                    if let Some(last) = open.last_mut() {
                        last.1 = false;
                    }
                }
                at = end;
            }
            b'{' | b'[' => {
                let object = bytes[at] == b'{';
                if open.len() >= DEEPEST || !visit(&path, at) {
                    return;
                }
                open.push((object, object));
                if !object {
                    path.push(Step::Entry(0));
                }
            }
            b'}' | b']' => {
                let Some((object, key)) = open.pop() else { return };
                if !visit(&path, at) {
                    return;
                }
                // An object that waits for a key has no field on the path.
                if !(object && key) {
                    path.pop();
                }
                // What comes after the bracket is in the outer value again.
                if !visit(&path, at + 1) {
                    return;
                }
            }
            b',' => match open.last_mut() {
                Some((true, key)) => {
                    if !*key {
                        path.pop();
                    }
                    *key = true;
                    // From here to the next key it is the object itself that is being read.
                }
                Some((false, _)) => {
                    if let Some(Step::Entry(index)) = path.last_mut() {
                        *index += 1;
                    }
                }
                None => return,
            },
            b if b.is_ascii_whitespace() || b == b':' => {}
            _ => {
                let end = bytes[at..]
                    .iter()
                    .position(|b| matches!(b, b',' | b'}' | b']') || b.is_ascii_whitespace());
                if !visit(&path, at) {
                    return;
                }
                at += end.unwrap_or(bytes.len() - at).max(1) - 1;
            }
        }
        at += 1;
    }
}

/// The offset of the closing quote of a string.
fn string_end(bytes: &[u8], start: usize) -> Option<usize> {
    let mut at = start + 1;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'\\' => at += 1,
            b'"' => return Some(at),
            _ => {}
        }
        at += 1;
    }
    None
}
