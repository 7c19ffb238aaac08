//! What a client accepts, and in what a body is written.

use crate::{
    Status,
    discovery::Aggregated,
    openapi::{V2_PROTOBUF, V2_PROTOBUF_ACCEPT},
    table::IncludeObject,
};

use super::query::Query;

/// The form of objects in an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Output {
    /// As they are.
    Json,
    /// Rows of a Table.
    Table(IncludeObject),
    /// Their metadata.
    Partial,
}

/// One clause of an `Accept` header.
struct Clause<'a> {
    kind: &'a str,
    parameters: Vec<(&'a str, &'a str)>,
}

impl Clause<'_> {
    fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(n, _)| *n == name).map(|(_, v)| *v)
    }

    fn is_json(&self) -> bool {
        matches!(self.kind, "application/json" | "application/*" | "*/*")
    }
}

fn clauses(accept: &str) -> Vec<Clause<'_>> {
    // The order of quality values; equal ones keep their order. Nobody sends hundreds.
    let mut all: Vec<(f32, Clause<'_>)> = accept
        .split(',')
        .take(32)
        .filter_map(|clause| {
            let mut parts = clause.split(';').map(str::trim);
            let kind = parts.next().filter(|k| !k.is_empty())?;
            let parameters: Vec<_> = parts.filter_map(|p| p.split_once('=')).collect();
            let clause = Clause { kind, parameters };
            let quality = clause.parameter("q").and_then(|q| q.parse().ok()).unwrap_or(1.0);
            (quality > 0.0).then_some((quality, clause))
        })
        .collect();
    all.sort_by(|a, b| b.0.total_cmp(&a.0));
    all.into_iter().map(|(_, clause)| clause).collect()
}

/// The form of objects that a client wants; `406` when it accepts none that we have.
pub(crate) fn output(accept: Option<&str>, query: &Query) -> Result<Output, Status> {
    let Some(accept) = accept.filter(|a| !a.trim().is_empty()) else {
        return Ok(Output::Json);
    };
    for clause in clauses(accept) {
        if !clause.is_json() {
            continue;
        }
        let meta_v1 = clause.parameter("g") == Some("meta.k8s.io") && clause.parameter("v") == Some("v1");
        match clause.parameter("as") {
            None => return Ok(Output::Json),
            Some("Table") if meta_v1 => return Ok(Output::Table(include_object(query)?)),
            Some("PartialObjectMetadata" | "PartialObjectMetadataList") if meta_v1 => {
                return Ok(Output::Partial);
            }
            Some(_) => {}
        }
    }
    Err(not_acceptable("application/json"))
}

fn include_object(query: &Query) -> Result<IncludeObject, Status> {
    match query.text("includeObject") {
        "" | "Metadata" => Ok(IncludeObject::Metadata),
        "None" => Ok(IncludeObject::None),
        "Object" => Ok(IncludeObject::Object),
        other => Err(Status::new(
            400,
            "BadRequest",
            format!("includeObject={other:?} is not None, Metadata or Object"),
        )),
    }
}

pub(crate) fn not_acceptable(offered: &str) -> Status {
    Status::new(
        406,
        "NotAcceptable",
        format!("only the following media types are accepted: {offered}"),
    )
}

/// Which aggregated discovery a client wants, if any.
pub(crate) fn aggregated(accept: Option<&str>) -> Option<Aggregated> {
    for clause in clauses(accept.unwrap_or_default()) {
        if clause.parameter("as") == Some("APIGroupDiscoveryList")
            && clause.parameter("g") == Some("apidiscovery.k8s.io")
        {
            match clause.parameter("v") {
                Some("v2") => return Some(Aggregated::V2),
                Some("v2beta1") => return Some(Aggregated::V2Beta1),
                _ => {}
            }
        } else if clause.is_json() {
            return None;
        }
    }
    None
}

/// Whether a client wants the OpenAPI v2 document as protobuf.
pub(crate) fn wants_v2_protobuf(accept: Option<&str>) -> bool {
    accept.is_some_and(|accept| {
        let first = accept
            .split(',')
            .next()
            .unwrap_or_default()
            .split(';')
            .next()
            .unwrap_or_default()
            .trim();
        first == V2_PROTOBUF_ACCEPT || first == V2_PROTOBUF
    })
}

/// Whether a client takes gzip.
pub(crate) fn takes_gzip(accept_encoding: Option<&str>) -> bool {
    accept_encoding.is_some_and(|value| clauses(value).iter().any(|c| c.kind == "gzip" || c.kind == "*"))
}

/// How a body is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Json,
    Yaml,
    Protobuf,
}

/// The media type without its parameters, in lower case.
pub(crate) fn media_type(content_type: Option<&str>) -> String {
    content_type
        .unwrap_or_default()
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase()
}

/// How an object in a body is written; JSON when the client does not say.
pub(crate) fn format(content_type: Option<&str>) -> Result<Format, Status> {
    let media_type = media_type(content_type);
    match media_type.as_str() {
        "" | "application/json" => Ok(Format::Json),
        "application/yaml" => Ok(Format::Yaml),
        crate::protobuf::MEDIA_TYPE => Ok(Format::Protobuf),
        other => Err(unsupported(
            other,
            "application/json, application/yaml, application/vnd.kubernetes.protobuf",
        )),
    }
}

pub(crate) fn unsupported(media_type: &str, offered: &str) -> Status {
    let message = format!(
        "the body of the request was in an unknown format {media_type:?} - accepted media types include: {offered}"
    );
    Status::new(415, "UnsupportedMediaType", message)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn table(accept: &str) -> Result<Output, u16> {
        output(Some(accept), &Query::default()).map_err(|s| s.code)
    }

    #[test]
    fn what_clients_send() {
        let kubectl = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        assert_eq!(table(kubectl), Ok(Output::Table(IncludeObject::Metadata)));
        assert_eq!(
            table("application/vnd.kubernetes.protobuf,application/json"),
            Ok(Output::Json)
        );
        assert_eq!(table("*/*"), Ok(Output::Json));
        assert_eq!(
            table("application/json;q=0.5, application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"),
            Ok(Output::Partial)
        );
        assert_eq!(
            table("application/json;as=Table;v=v1alpha9;g=meta.k8s.io"),
            Err(406)
        );
        assert_eq!(table("text/html"), Err(406));
        assert_eq!(aggregated(Some("application/json")), None);
        let old =
            "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";
        assert_eq!(aggregated(Some(old)), Some(Aggregated::V2Beta1));
        assert!(wants_v2_protobuf(Some(
            "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"
        )));
        assert!(takes_gzip(Some("br, gzip;q=0.5")) && !takes_gzip(Some("gzip;q=0")) && !takes_gzip(None));
    }

    proptest! {
        #[test]
        fn any_header_gives_an_answer(accept in "\\PC{0,80}") {
            let _ = table(&accept);
            let _ = aggregated(Some(&accept));
        }
    }
}
