//! The part of JSONPath that columns and selectable fields use: `.a.b`, `['a.b']`, `[0]`, `[*]` and
//! `[?(@.type=="Ready")]`. The leading dot and braces around it all are optional.

use serde_json::Value;

enum Step<'a> {
    Field(String),
    Index(usize),
    All,
    Where(&'a str, &'a str),
}

/// The first value at a path that is not null.
#[must_use]
pub fn first<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    let path = path.trim().trim_start_matches('{').trim_end_matches('}');
    walk(value, path, 0)
}

fn walk<'a>(value: &'a Value, path: &str, depth: usize) -> Option<&'a Value> {
    const DEEPEST: usize = 64;
    if path.is_empty() || path == "." {
        return (!value.is_null()).then_some(value);
    }
    if depth > DEEPEST {
        return None;
    }
    let (step, rest) = step(path)?;
    match step {
        Step::Field(name) => walk(value.get(&name)?, rest, depth + 1),
        Step::Index(index) => walk(value.get(index)?, rest, depth + 1),
        Step::All => children(value).find_map(|child| walk(child, rest, depth + 1)),
        Step::Where(inner, wanted) => children(value)
            .filter(|child| walk(child, inner, depth + 1).is_some_and(|found| is(found, wanted)))
            .find_map(|child| walk(child, rest, depth + 1)),
    }
}

fn is(found: &Value, wanted: &str) -> bool {
    match found {
        Value::String(text) => text == wanted,
        other => format!("{other}") == wanted,
    }
}

fn children(value: &Value) -> Box<dyn Iterator<Item = &Value> + '_> {
    match value {
        Value::Array(items) => Box::new(items.iter()),
        Value::Object(map) => Box::new(map.values()),
        _ => Box::new(std::iter::empty()),
    }
}

fn step(path: &str) -> Option<(Step<'_>, &str)> {
    if let Some(inside) = path.strip_prefix('[') {
        if let Some(filter) = inside.strip_prefix("?(") {
            let (filter, rest) = filter.split_once(")]")?;
            let (left, right) = filter.split_once("==")?;
            let left = left.trim().strip_prefix('@')?;
            return Some((Step::Where(left, right.trim().trim_matches(['"', '\''])), rest));
        }
        for quote in ['\'', '"'] {
            if let Some(quoted) = inside.strip_prefix(quote) {
                let (name, rest) = quoted.split_once(quote)?;
                return Some((Step::Field(name.into()), rest.strip_prefix(']')?));
            }
        }
        let (index, rest) = inside.split_once(']')?;
        let step = if index == "*" {
            Step::All
        } else {
            Step::Index(index.parse().ok()?)
        };
        return Some((step, rest));
    }
    let path = path.strip_prefix('.').unwrap_or(path);
    if path.starts_with('[') {
        return step(path);
    }
    let mut name = String::new();
    let mut chars = path.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => name.extend(chars.next().map(|(_, c)| c)),
            '.' | '[' => return Some((field(name), &path[at..])),
            _ => name.push(c),
        }
    }
    Some((field(name), ""))
}

fn field<'a>(name: String) -> Step<'a> {
    if name == "*" { Step::All } else { Step::Field(name) }
}
