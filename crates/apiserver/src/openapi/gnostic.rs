//! The v2 document as protobuf: the messages of `openapi.v2` in google/gnostic that our documents use, by their numbers.

use prost::{Message, Oneof};
use serde_json::{Map, Value};

#[derive(Clone, PartialEq, Message)]
struct Document {
    #[prost(string, tag = "1")]
    swagger: String,
    #[prost(message, optional, tag = "2")]
    info: Option<Info>,
    #[prost(message, optional, tag = "8")]
    paths: Option<Paths>,
    #[prost(message, optional, tag = "9")]
    definitions: Option<Properties>,
}

#[derive(Clone, PartialEq, Message)]
struct Info {
    #[prost(string, tag = "1")]
    title: String,
    #[prost(string, tag = "2")]
    version: String,
}

#[derive(Clone, PartialEq, Message)]
struct Paths {
    #[prost(message, repeated, tag = "2")]
    path: Vec<NamedPathItem>,
}

#[derive(Clone, PartialEq, Message)]
struct NamedPathItem {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    value: Option<PathItem>,
}

#[derive(Clone, PartialEq, Message)]
struct PathItem {
    #[prost(message, optional, tag = "2")]
    get: Option<Operation>,
    #[prost(message, optional, tag = "3")]
    put: Option<Operation>,
    #[prost(message, optional, tag = "4")]
    post: Option<Operation>,
    #[prost(message, optional, tag = "5")]
    delete: Option<Operation>,
    #[prost(message, optional, tag = "8")]
    patch: Option<Operation>,
    #[prost(message, repeated, tag = "9")]
    parameters: Vec<ParametersItem>,
}

#[derive(Clone, PartialEq, Message)]
struct Operation {
    #[prost(string, repeated, tag = "1")]
    tags: Vec<String>,
    #[prost(string, tag = "5")]
    operation_id: String,
    #[prost(string, repeated, tag = "6")]
    produces: Vec<String>,
    #[prost(string, repeated, tag = "7")]
    consumes: Vec<String>,
    #[prost(message, repeated, tag = "8")]
    parameters: Vec<ParametersItem>,
    #[prost(message, optional, tag = "9")]
    responses: Option<Responses>,
    #[prost(message, repeated, tag = "13")]
    vendor_extension: Vec<NamedAny>,
}

#[derive(Clone, PartialEq, Message)]
struct NamedAny {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    value: Option<Any>,
}

#[derive(Clone, PartialEq, Message)]
struct Any {
    /// YAML text; JSON is YAML.
    #[prost(string, tag = "2")]
    yaml: String,
}

#[derive(Clone, PartialEq, Message)]
struct ParametersItem {
    #[prost(message, optional, tag = "1")]
    parameter: Option<Parameter>,
}

#[derive(Clone, PartialEq, Message)]
struct Parameter {
    #[prost(oneof = "ParameterKind", tags = "1, 2")]
    kind: Option<ParameterKind>,
}

#[derive(Clone, PartialEq, Oneof)]
enum ParameterKind {
    #[prost(message, tag = "1")]
    Body(BodyParameter),
    #[prost(message, tag = "2")]
    NonBody(NonBodyParameter),
}

#[derive(Clone, PartialEq, Message)]
struct BodyParameter {
    #[prost(string, tag = "2")]
    name: String,
    #[prost(string, tag = "3")]
    location: String,
    #[prost(bool, tag = "4")]
    required: bool,
    #[prost(message, optional, tag = "5")]
    schema: Option<Schema>,
}

#[derive(Clone, PartialEq, Message)]
struct NonBodyParameter {
    #[prost(oneof = "NonBodyKind", tags = "3, 4")]
    kind: Option<NonBodyKind>,
}

#[derive(Clone, PartialEq, Oneof)]
enum NonBodyKind {
    #[prost(message, tag = "3")]
    Query(QueryParameter),
    #[prost(message, tag = "4")]
    Path(PathParameter),
}

#[derive(Clone, PartialEq, Message)]
struct QueryParameter {
    #[prost(string, tag = "2")]
    location: String,
    #[prost(string, tag = "3")]
    description: String,
    #[prost(string, tag = "4")]
    name: String,
    #[prost(string, tag = "6")]
    kind: String,
    #[prost(bool, tag = "20")]
    unique_items: bool,
}

#[derive(Clone, PartialEq, Message)]
struct PathParameter {
    #[prost(bool, tag = "1")]
    required: bool,
    #[prost(string, tag = "2")]
    location: String,
    #[prost(string, tag = "3")]
    description: String,
    #[prost(string, tag = "4")]
    name: String,
    #[prost(string, tag = "5")]
    kind: String,
    #[prost(bool, tag = "18")]
    unique_items: bool,
}

#[derive(Clone, PartialEq, Message)]
struct Responses {
    #[prost(message, repeated, tag = "1")]
    response_code: Vec<NamedResponse>,
}

#[derive(Clone, PartialEq, Message)]
struct NamedResponse {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    value: Option<ResponseValue>,
}

#[derive(Clone, PartialEq, Message)]
struct ResponseValue {
    #[prost(message, optional, tag = "1")]
    response: Option<Response>,
}

#[derive(Clone, PartialEq, Message)]
struct Response {
    #[prost(string, tag = "1")]
    description: String,
    #[prost(message, optional, tag = "2")]
    schema: Option<SchemaItem>,
}

#[derive(Clone, PartialEq, Message)]
struct SchemaItem {
    #[prost(message, optional, tag = "1")]
    schema: Option<Schema>,
}

#[derive(Clone, PartialEq, Message)]
struct Schema {
    #[prost(string, tag = "1")]
    reference: String,
    #[prost(string, tag = "2")]
    format: String,
    #[prost(string, tag = "4")]
    description: String,
    #[prost(message, optional, tag = "5")]
    default: Option<Any>,
    #[prost(string, repeated, tag = "19")]
    required: Vec<String>,
    #[prost(message, repeated, tag = "20")]
    choices: Vec<Any>,
    #[prost(message, optional, boxed, tag = "21")]
    additional_properties: Option<Box<AdditionalProperties>>,
    #[prost(message, optional, tag = "22")]
    kind: Option<TypeItem>,
    #[prost(message, optional, tag = "23")]
    items: Option<Items>,
    #[prost(message, optional, tag = "25")]
    properties: Option<Properties>,
    #[prost(message, repeated, tag = "31")]
    vendor_extension: Vec<NamedAny>,
}

#[derive(Clone, PartialEq, Message)]
struct AdditionalProperties {
    #[prost(oneof = "AdditionalKind", tags = "1, 2")]
    kind: Option<AdditionalKind>,
}

#[derive(Clone, PartialEq, Oneof)]
enum AdditionalKind {
    #[prost(message, boxed, tag = "1")]
    Schema(Box<Schema>),
    #[prost(bool, tag = "2")]
    Boolean(bool),
}

#[derive(Clone, PartialEq, Message)]
struct TypeItem {
    #[prost(string, repeated, tag = "1")]
    value: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
struct Items {
    #[prost(message, repeated, tag = "1")]
    schema: Vec<Schema>,
}

/// `Properties` and `Definitions` have the same form.
#[derive(Clone, PartialEq, Message)]
struct Properties {
    #[prost(message, repeated, tag = "1")]
    additional_properties: Vec<NamedSchema>,
}

#[derive(Clone, PartialEq, Message)]
struct NamedSchema {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    value: Option<Schema>,
}

/// Encodes a v2 document that was made here as JSON.
pub(super) fn encode(document: &Value) -> Vec<u8> {
    let path = entries(&document["paths"])
        .map(|(name, item)| NamedPathItem {
            name: name.clone(),
            value: Some(path_item(item)),
        })
        .collect();
    Document {
        swagger: text(document, "swagger"),
        info: Some(Info {
            title: text(&document["info"], "title"),
            version: text(&document["info"], "version"),
        }),
        paths: Some(Paths { path }),
        definitions: Some(properties(&document["definitions"])),
    }
    .encode_to_vec()
}

fn text(value: &Value, key: &str) -> String {
    value
        .get(key)
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned()
}

fn texts(value: &Value, key: &str) -> Vec<String> {
    let list = value.get(key).and_then(Value::as_array);
    list.into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect()
}

fn entries(value: &Value) -> serde_json::map::Iter<'_> {
    static EMPTY: std::sync::LazyLock<Map<String, Value>> = std::sync::LazyLock::new(Map::new);
    value.as_object().unwrap_or(&EMPTY).iter()
}

fn any(value: &Value) -> Any {
    Any {
        yaml: value.to_string(),
    }
}

fn extensions(value: &Value) -> Vec<NamedAny> {
    let ours = entries(value).filter(|(name, _)| name.starts_with("x-"));
    ours.map(|(name, value)| NamedAny {
        name: name.clone(),
        value: Some(any(value)),
    })
    .collect()
}

fn path_item(item: &Value) -> PathItem {
    let verb = |name: &str| item.get(name).map(operation);
    PathItem {
        get: verb("get"),
        put: verb("put"),
        post: verb("post"),
        delete: verb("delete"),
        patch: verb("patch"),
        parameters: parameters(&item["parameters"]),
    }
}

fn operation(value: &Value) -> Operation {
    let response = |(code, response): (&String, &Value)| {
        let schema = response.get("schema").map(|s| SchemaItem {
            schema: Some(schema(s)),
        });
        let response = Response {
            description: text(response, "description"),
            schema,
        };
        NamedResponse {
            name: code.clone(),
            value: Some(ResponseValue {
                response: Some(response),
            }),
        }
    };
    Operation {
        tags: texts(value, "tags"),
        operation_id: text(value, "operationId"),
        produces: texts(value, "produces"),
        consumes: texts(value, "consumes"),
        parameters: parameters(&value["parameters"]),
        responses: Some(Responses {
            response_code: entries(&value["responses"]).map(response).collect(),
        }),
        vendor_extension: extensions(value),
    }
}

fn parameters(list: &Value) -> Vec<ParametersItem> {
    let one = |value: &Value| {
        let (name, location) = (text(value, "name"), text(value, "in"));
        let (description, kind) = (text(value, "description"), text(value, "type"));
        let required = value["required"].as_bool().unwrap_or(false);
        let kind = match location.as_str() {
            "body" => ParameterKind::Body(BodyParameter {
                name,
                location,
                required,
                schema: Some(schema(&value["schema"])),
            }),
            "path" => {
                let path = PathParameter {
                    required,
                    location,
                    description,
                    name,
                    kind,
                    unique_items: true,
                };
                ParameterKind::NonBody(NonBodyParameter {
                    kind: Some(NonBodyKind::Path(path)),
                })
            }
            _ => {
                let query = QueryParameter {
                    location,
                    description,
                    name,
                    kind,
                    unique_items: true,
                };
                ParameterKind::NonBody(NonBodyParameter {
                    kind: Some(NonBodyKind::Query(query)),
                })
            }
        };
        ParametersItem {
            parameter: Some(Parameter { kind: Some(kind) }),
        }
    };
    list.as_array().into_iter().flatten().map(one).collect()
}

fn properties(value: &Value) -> Properties {
    let all = entries(value).map(|(name, value)| NamedSchema {
        name: name.clone(),
        value: Some(schema(value)),
    });
    Properties {
        additional_properties: all.collect(),
    }
}

fn schema(value: &Value) -> Schema {
    let additional = value.get("additionalProperties").map(|inner| {
        let kind = match inner {
            Value::Bool(open) => AdditionalKind::Boolean(*open),
            inner => AdditionalKind::Schema(Box::new(schema(inner))),
        };
        Box::new(AdditionalProperties { kind: Some(kind) })
    });
    let kind = value.get("type").and_then(Value::as_str).map(|kind| TypeItem {
        value: vec![kind.into()],
    });
    Schema {
        reference: text(value, "$ref"),
        format: text(value, "format"),
        description: text(value, "description"),
        default: value.get("default").map(any),
        required: texts(value, "required"),
        choices: value
            .get("enum")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .map(any)
            .collect(),
        additional_properties: additional,
        kind,
        items: value.get("items").map(|items| Items {
            schema: vec![schema(items)],
        }),
        properties: value.get("properties").map(properties),
        vendor_extension: extensions(value),
    }
}
