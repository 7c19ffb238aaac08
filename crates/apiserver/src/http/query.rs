//! The query of a URL.

use percent_encoding::percent_decode_str;

use crate::Status;

const MAX_PARAMETERS: usize = 64;

/// Names and values in their order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    /// Reads `a=b&c=d`.
    pub(crate) fn parse(text: &str) -> Result<Self, Status> {
        let mut all = Vec::new();
        for pair in text.split('&').filter(|p| !p.is_empty()) {
            if all.len() >= MAX_PARAMETERS {
                return Err(Status::new(
                    400,
                    "BadRequest",
                    format!("more than {MAX_PARAMETERS} query parameters"),
                ));
            }
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            all.push((decode(name)?, decode(value)?));
        }
        Ok(Self(all))
    }

    /// The first value of a parameter; an empty one counts as absent.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, v)| v.as_str())
            .filter(|v| !v.is_empty())
    }

    /// Whether a parameter is there at all.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(n, _)| n == name)
    }

    /// A parameter's value, empty if absent.
    pub(crate) fn text(&self, name: &str) -> &str {
        self.get(name).unwrap_or_default()
    }

    /// All values of a parameter.
    pub(crate) fn all(&self, name: &str) -> Vec<String> {
        self.0
            .iter()
            .filter(|(n, v)| n == name && !v.is_empty())
            .map(|(_, v)| v.clone())
            .collect()
    }

    /// A boolean; present without a value is true, as in Kubernetes.
    pub(crate) fn flag(&self, name: &str) -> Result<Option<bool>, Status> {
        match self.0.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str()) {
            None => Ok(None),
            Some("" | "1" | "t" | "T" | "true" | "True" | "TRUE") => Ok(Some(true)),
            Some("0" | "f" | "F" | "false" | "False" | "FALSE") => Ok(Some(false)),
            Some(other) => Err(bad(name, other, "a boolean")),
        }
    }

    /// A number.
    pub(crate) fn number(&self, name: &str) -> Result<Option<u64>, Status> {
        self.get(name)
            .map(|text| text.parse().map_err(|_| bad(name, text, "a number")))
            .transpose()
    }
}

fn bad(name: &str, value: &str, expected: &str) -> Status {
    Status::new(
        400,
        "BadRequest",
        format!("query parameter {name}={value:?} is not {expected}"),
    )
}

fn decode(text: &str) -> Result<String, Status> {
    let spaced = text.replace('+', " ");
    let decoded = percent_decode_str(&spaced).decode_utf8();
    decoded
        .map(|t| t.into_owned())
        .map_err(|_| Status::new(400, "BadRequest", "the query is not valid UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_decoded() {
        let query = Query::parse("a=b%3Dc+d&watch&n=5&e=&dryRun=All&dryRun=All").unwrap();
        assert_eq!(query.get("a"), Some("b=c d"));
        assert_eq!(query.flag("watch").unwrap(), Some(true));
        assert_eq!(query.number("n").unwrap(), Some(5));
        assert_eq!(query.get("e"), None);
        assert!(query.has("e"));
        assert_eq!(query.all("dryRun").len(), 2);
    }

    #[test]
    fn what_is_no_number_is_refused_by_name() {
        let query = Query::parse("limit=x&watch=maybe").unwrap();
        assert_eq!(
            query.number("limit").unwrap_err().message,
            "query parameter limit=\"x\" is not a number"
        );
        assert!(query.flag("watch").is_err());
        assert!(Query::parse("a=%ff").is_err());
        assert!(Query::parse(&"a&".repeat(1000)).is_err());
    }
}
