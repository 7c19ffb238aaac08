//! Variables in objects, as Flux's `postBuild` has them: `${var}`, `${var:=default}`, `${var:-default}`,
//! `$${var}` for a literal `${var}`.

use std::collections::BTreeMap;

use serde_json::Value;

/// An object with this label or annotation set to `disabled` is left as it is.
const MARK: &str = "kustomize.toolkit.fluxcd.io/substitute";

/// A default may hold variables with defaults of their own, so far down.
const MAX_DEPTH: usize = 16;

/// Why a text could not be filled in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubstituteError {
    /// An operator that is not supported.
    #[error(
        "`${{{0}}}` is no substitution that is supported; use ${{name}}, ${{name:-default}} or ${{name:=default}}"
    )]
    Unsupported(String),
    /// The brace is not closed.
    #[error("`${{` without `}}`")]
    Open,
    /// Defaults within defaults, too many of them.
    #[error("variables are nested deeper than {MAX_DEPTH} levels")]
    Depth,
}

/// Fills variables into every text of an object. With no variables defined nothing is done, so that shell
/// scripts in a repository without variables stay whole.
pub fn substitute(
    object: &mut Value,
    variables: &BTreeMap<String, String>,
) -> Result<(), (String, SubstituteError)> {
    let off = |value: Option<&str>| value == Some("disabled");
    if variables.is_empty()
        || off(kinds::object::label(object, MARK))
        || off(kinds::object::annotation(object, MARK))
    {
        return Ok(());
    }
    visit(object, "", variables)
}

fn visit(
    value: &mut Value,
    path: &str,
    variables: &BTreeMap<String, String>,
) -> Result<(), (String, SubstituteError)> {
    match value {
        Value::String(text) if text.contains('$') => {
            let whole_reference = text.starts_with("${") && text.ends_with('}');
            let filled = fill(text, variables).map_err(|e| (path.to_owned(), e))?;
            // A value that was nothing but a variable takes the type that the filled-in YAML would have:
            // `replicas: ${n}` becomes a number.
            *value = match whole_reference.then(|| crate::scalar::resolve(&filled)).flatten() {
                Some(typed @ (Value::Number(_) | Value::Bool(_))) if !is_text_field(path) => typed,
                _ => Value::String(filled),
            };
            Ok(())
        }
        Value::Array(items) => items
            .iter_mut()
            .enumerate()
            .try_for_each(|(n, item)| visit(item, &format!("{path}[{n}]"), variables)),
        Value::Object(map) => map.iter_mut().try_for_each(|(key, item)| {
            let path = if path.is_empty() {
                key.clone()
            } else {
                format!("{path}.{key}")
            };
            visit(item, &path, variables)
        }),
        _ => Ok(()),
    }
}

/// Fields that only ever hold text, whatever it looks like.
fn is_text_field(path: &str) -> bool {
    ["metadata.", "data.", "stringData.", "binaryData."]
        .iter()
        .any(|start| path.starts_with(start))
}

/// Fills variables into a text.
pub fn fill(text: &str, variables: &BTreeMap<String, String>) -> Result<String, SubstituteError> {
    fill_within(text, variables, MAX_DEPTH)
}

fn fill_within(
    text: &str,
    variables: &BTreeMap<String, String>,
    depth: usize,
) -> Result<String, SubstituteError> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(after) = rest.strip_prefix("$${") {
            out.push_str("${");
            rest = after;
        } else if let Some(inner) = rest.strip_prefix("${") {
            let end = close(inner).ok_or(SubstituteError::Open)?;
            out.push_str(&expand(&inner[..end], variables, depth)?);
            rest = &inner[end + 1..];
        } else {
            out.push('$');
            rest = &rest[1..];
        }
    }
    out.push_str(rest);
    Ok(out)
}

/// The place of the brace that closes, over nested ones.
fn close(inner: &str) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, byte) in inner.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' if depth == 0 => return Some(at),
            b'}' => depth -= 1,
            _ => {}
        }
    }
    None
}

fn expand(
    expression: &str,
    variables: &BTreeMap<String, String>,
    depth: usize,
) -> Result<String, SubstituteError> {
    let end = expression
        .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .unwrap_or(expression.len());
    let (name, operator) = expression.split_at(end);
    let starts_well = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let value = variables.get(name).map(String::as_str);
    match operator {
        _ if !starts_well => Err(SubstituteError::Unsupported(expression.into())),
        "" => Ok(value.unwrap_or_default().into()),
        _ => {
            let unset_or_empty = operator
                .strip_prefix(":=")
                .or_else(|| operator.strip_prefix(":-"));
            let unset = operator.strip_prefix('=').or_else(|| operator.strip_prefix('-'));
            match (value, unset_or_empty, unset) {
                (Some(value), Some(_), _) if !value.is_empty() => Ok(value.into()),
                (Some(value), _, Some(_)) => Ok(value.into()),
                (_, Some(default), _) | (_, None, Some(default)) => {
                    let depth = depth.checked_sub(1).ok_or(SubstituteError::Depth)?;
                    fill_within(default, variables, depth)
                }
                _ => Err(SubstituteError::Unsupported(expression.into())),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn variables() -> BTreeMap<String, String> {
        [("a", "1"), ("name", "shop"), ("empty", "")]
            .map(|(k, v)| (k.into(), v.into()))
            .into()
    }

    #[test]
    fn variables_are_filled_in() {
        let cases = [
            ("${name}-x", Ok("shop-x")),
            ("${none}", Ok("")),
            ("${none:=d}${none:-e}", Ok("de")),
            ("${empty:-d}${empty-d}", Ok("d")),
            ("${none:-${name}}", Ok("shop")),
            ("$${name}", Ok("${name}")),
            ("$name $5 $(x) $", Ok("$name $5 $(x) $")),
            ("${name", Err(SubstituteError::Open)),
            ("${name^^}", Err(SubstituteError::Unsupported("name^^".into()))),
            ("${1}", Err(SubstituteError::Unsupported("1".into()))),
        ];
        for (text, wanted) in cases {
            assert_eq!(fill(text, &variables()), wanted.map(String::from), "{text}");
        }
    }

    #[test]
    fn defaults_within_defaults_end_somewhere() {
        let nested = |levels| format!("{}x{}", "${none:-".repeat(levels), "}".repeat(levels));
        assert_eq!(fill(&nested(MAX_DEPTH), &variables()), Ok("x".into()));
        // As deep as a file may be long: each level has its place on the stack.
        assert_eq!(fill(&nested(100_000), &variables()), Err(SubstituteError::Depth));
    }

    #[test]
    fn only_with_variables_and_only_where_allowed() {
        let mut object = json!({"spec": {"n": "${a}", "t": "x${a}"}, "data": {"n": "${a}"}});
        let before = object.clone();
        substitute(&mut object, &BTreeMap::new()).unwrap();
        assert_eq!(object, before);
        substitute(&mut object, &variables()).unwrap();
        assert_eq!(object, json!({"spec": {"n": 1, "t": "x1"}, "data": {"n": "1"}}));
        let mut off = json!({"metadata": {"labels": {MARK: "disabled"}}, "spec": {"n": "${a}"}});
        let before = off.clone();
        substitute(&mut off, &variables()).unwrap();
        assert_eq!(off, before);
        let mut wrong = json!({"spec": {"l": ["${a"]}});
        assert_eq!(
            substitute(&mut wrong, &variables()),
            Err(("spec.l[0]".into(), SubstituteError::Open))
        );
    }
}
