//! Kubernetes' protobuf bodies, read into JSON.
//!
//! A body is the four bytes `k8s\0` and a `runtime.Unknown` message that names the type and holds the object.
//! The shapes come from `data/kubernetes.binpb`; only what Kubernetes writes differently in JSON is code here:
//! quantities, times, int-or-string, raw JSON and byte strings. Answers are never protobuf: every client that
//! sends it also accepts JSON.

use std::sync::OnceLock;

use base64::{Engine, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, MapKey, MessageDescriptor, ReflectMessage,
    Value as Proto,
};
use serde_json::{Map, Value};

/// The media type of such a body.
pub(crate) const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";

const MAGIC: &[u8] = b"k8s\0";
const MAX_DEPTH: usize = 64;
static DESCRIPTORS: &[u8] = include_bytes!("../data/kubernetes.binpb");

/// Why a protobuf body could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The body does not start as Kubernetes' protobuf does.
    #[error("the body does not start with the four bytes of Kubernetes' protobuf encoding")]
    Magic,
    /// The bytes are no message of the type.
    #[error("the body is no valid protobuf {0}")]
    Decode(String, #[source] prost::DecodeError),
    /// A type that has no protobuf form here.
    #[error("there is no protobuf form of {kind} in {api_version}: send JSON")]
    Unknown {
        /// What the body says it is.
        api_version: String,
        /// What the body says it is.
        kind: String,
    },
    /// Raw JSON inside the message is not JSON.
    #[error("field {0} holds no valid JSON")]
    Raw(String, #[source] serde_json::Error),
    /// Nested too deeply.
    #[error("the body is nested deeper than {MAX_DEPTH} levels")]
    Depth,
    /// A time that is no time.
    #[error("field {0} is no valid time")]
    Time(String),
    /// The object inside is encoded in a way that is not known.
    #[error("content encoding or type {0:?} inside the body is not supported")]
    Encoding(String),
    /// The embedded descriptors are damaged (never in a tested build).
    #[error("the embedded descriptors are damaged: {0}")]
    Descriptors(String),
}

/// Reads a protobuf body into the JSON object that it stands for.
pub(crate) fn decode(body: &[u8]) -> Result<Value, Error> {
    let raw = body.strip_prefix(MAGIC).ok_or(Error::Magic)?;
    let pool = pool()?;
    let unknown = message(pool, "k8s.io.apimachinery.pkg.runtime.Unknown", raw)?;
    let text = |message: &DynamicMessage, field: &str| {
        message
            .get_field_by_name(field)
            .and_then(|v| v.as_str().map(str::to_owned))
            .unwrap_or_default()
    };
    let type_meta = unknown.get_field_by_name("typeMeta");
    let type_meta = type_meta.as_ref().and_then(|v| v.as_message());
    let api_version = type_meta.map(|m| text(m, "apiVersion")).unwrap_or_default();
    let kind = type_meta.map(|m| text(m, "kind")).unwrap_or_default();
    for field in ["contentEncoding", "contentType"] {
        let value = text(&unknown, field);
        if !value.is_empty() && value != MEDIA_TYPE {
            return Err(Error::Encoding(value));
        }
    }
    let inner = unknown.get_field_by_name("raw");
    let inner = inner
        .as_ref()
        .and_then(|v| v.as_bytes())
        .cloned()
        .unwrap_or_default();
    let name = message_name(pool, &api_version, &kind).ok_or_else(|| Error::Unknown {
        api_version: api_version.clone(),
        kind: kind.clone(),
    })?;
    let decoded = message(pool, &name, &inner)?;
    let mut object = Map::new();
    object.insert("kind".into(), Value::String(kind));
    object.insert("apiVersion".into(), Value::String(api_version));
    if let Some(Value::Object(fields)) = to_json(&decoded, 0)? {
        object.extend(fields);
    }
    Ok(Value::Object(object))
}

fn pool() -> Result<&'static DescriptorPool, Error> {
    static POOL: OnceLock<Result<DescriptorPool, String>> = OnceLock::new();
    let pool = POOL.get_or_init(|| DescriptorPool::decode(DESCRIPTORS).map_err(|e| e.to_string()));
    pool.as_ref().map_err(|e| Error::Descriptors(e.clone()))
}

fn message(pool: &DescriptorPool, name: &str, bytes: &[u8]) -> Result<DynamicMessage, Error> {
    let descriptor = pool
        .get_message_by_name(name)
        .ok_or_else(|| Error::Descriptors(name.into()))?;
    DynamicMessage::decode(descriptor, bytes).map_err(|e| Error::Decode(name.into(), e))
}

/// `v1` ConfigMap is `k8s.io.api.core.v1.ConfigMap`; `coordination.k8s.io/v1` is package `coordination`. The option
/// types of `meta/v1` are sent under any group version.
fn message_name(pool: &DescriptorPool, api_version: &str, kind: &str) -> Option<String> {
    let (group, version) = kinds::object::split_api_version(api_version);
    let package = match group.split_once('.') {
        None if group.is_empty() => "core",
        None => group,
        Some((first, "k8s.io" | "authorization.k8s.io")) => first,
        Some(_) => return option_name(pool, kind),
    };
    let name = format!("k8s.io.api.{package}.{version}.{kind}");
    if pool.get_message_by_name(&name).is_some() {
        Some(name)
    } else {
        option_name(pool, kind)
    }
}

fn option_name(pool: &DescriptorPool, kind: &str) -> Option<String> {
    let name = format!("k8s.io.apimachinery.pkg.apis.meta.v1.{kind}");
    (kind.ends_with("Options") && pool.get_message_by_name(&name).is_some()).then_some(name)
}

/// A message as JSON; `None` when JSON leaves it out.
fn to_json(message: &DynamicMessage, depth: usize) -> Result<Option<Value>, Error> {
    if depth > MAX_DEPTH {
        return Err(Error::Depth);
    }
    let descriptor = message.descriptor();
    if let Some(special) = special(&descriptor, message)? {
        return Ok(special);
    }
    let mut object = Map::new();
    for (field, value) in message.fields() {
        if let Some(value) = field_to_json(&field, value, depth)? {
            object.insert(field.name().to_owned(), value);
        }
    }
    Ok(Some(Value::Object(object)))
}

fn field_to_json(field: &FieldDescriptor, value: &Proto, depth: usize) -> Result<Option<Value>, Error> {
    Ok(match value {
        Proto::List(list) => {
            let items = list
                .iter()
                .map(|v| Ok(scalar(v, depth)?.unwrap_or(Value::Null)))
                .collect::<Result<Vec<_>, Error>>()?;
            (!items.is_empty()).then_some(Value::Array(items))
        }
        Proto::Map(map) => {
            let mut object = Map::new();
            for (key, value) in map {
                let key = match key {
                    MapKey::String(key) => key.clone(),
                    other => format!("{other:?}"),
                };
                object.insert(key, scalar(value, depth)?.unwrap_or(Value::Null));
            }
            (!object.is_empty()).then_some(Value::Object(object))
        }
        // Go writes fields that are no pointers even when they are empty; its JSON leaves them out. Numbers and
        // booleans stay: of those, the ones that are pointers mean something when they are zero.
        Proto::String(text) if text.is_empty() => None,
        Proto::Bytes(bytes) if bytes.is_empty() => None,
        Proto::Message(_) => {
            let value = scalar(value, depth)?;
            let empty = value
                .as_ref()
                .and_then(Value::as_object)
                .is_some_and(Map::is_empty);
            value.filter(|_| {
                !(empty
                    && matches!(
                        field.name(),
                        "metadata" | "status" | "spec" | "source" | "involvedObject"
                    ))
            })
        }
        other => scalar(other, depth)?,
    })
}

fn scalar(value: &Proto, depth: usize) -> Result<Option<Value>, Error> {
    Ok(Some(match value {
        Proto::Bool(v) => (*v).into(),
        Proto::I32(v) => (*v).into(),
        Proto::I64(v) => (*v).into(),
        Proto::U32(v) => (*v).into(),
        Proto::U64(v) => (*v).into(),
        Proto::F32(v) => f64::from(*v).into(),
        Proto::F64(v) => (*v).into(),
        Proto::String(v) => v.as_str().into(),
        Proto::Bytes(v) => STANDARD.encode(v).into(),
        Proto::EnumNumber(v) => (*v).into(),
        Proto::Message(v) => return to_json(v, depth + 1),
        Proto::List(_) | Proto::Map(_) => Value::Null,
    }))
}

/// The types whose JSON is not the image of their message. Outer `None`: an ordinary message.
fn special(descriptor: &MessageDescriptor, message: &DynamicMessage) -> Result<Option<Option<Value>>, Error> {
    let get = |name: &str| message.get_field_by_name(name);
    let number = |name: &str| {
        get(name)
            .and_then(|v| v.as_i64().or_else(|| v.as_i32().map(i64::from)))
            .unwrap_or(0)
    };
    let text = |name: &str| {
        get(name)
            .and_then(|v| v.as_str().map(str::to_owned))
            .unwrap_or_default()
    };
    let name = descriptor.full_name();
    Ok(
        match name.strip_prefix("k8s.io.apimachinery.pkg.").unwrap_or_default() {
            "api.resource.Quantity" => Some(Some(Value::String(text("string")))),
            "util.intstr.IntOrString" => {
                let value = if number("type") == 0 {
                    number("intVal").into()
                } else {
                    text("strVal").into()
                };
                Some(Some(value))
            }
            kind @ ("apis.meta.v1.Time" | "apis.meta.v1.MicroTime") => {
                let (seconds, nanos) = (number("seconds"), number("nanos"));
                if !message.fields().any(|_| true) {
                    return Ok(Some(None));
                }
                let nanos = i32::try_from(nanos).map_err(|_| Error::Time(name.into()))?;
                let time = Timestamp::new(seconds, nanos).map_err(|_| Error::Time(name.into()))?;
                let format = if kind.ends_with("MicroTime") {
                    "%Y-%m-%dT%H:%M:%S.%6fZ"
                } else {
                    "%Y-%m-%dT%H:%M:%SZ"
                };
                Some(Some(Value::String(time.strftime(format).to_string())))
            }
            "apis.meta.v1.FieldsV1" => Some(raw_json(message, "Raw")?),
            "runtime.RawExtension" => Some(raw_json(message, "raw")?),
            _ => None,
        },
    )
}

fn raw_json(message: &DynamicMessage, field: &str) -> Result<Option<Value>, Error> {
    let value = message.get_field_by_name(field);
    let bytes = value
        .as_ref()
        .and_then(|v| v.as_bytes())
        .cloned()
        .unwrap_or_default();
    if bytes.is_empty() {
        return Ok(None);
    }
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|e| Error::Raw(message.descriptor().full_name().into(), e))
}

#[cfg(test)]
mod tests;
