//! A request's body as an object: JSON, YAML or protobuf. Fields that occur twice in JSON are found and named.

use std::{cell::RefCell, fmt};

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::{Status, protobuf};

use super::negotiate::Format;

const MAX_DUPLICATES: usize = 16;

/// An object from a body, with the fields that were in it twice.
#[derive(Debug)]
pub(crate) struct Decoded {
    pub(crate) object: Value,
    pub(crate) duplicates: Vec<String>,
}

fn bad(message: impl fmt::Display) -> Status {
    Status::new(400, "BadRequest", message.to_string())
}

/// Reads an object. An empty body gives `Null`.
pub(crate) fn object(body: &[u8], format: Format) -> Result<Decoded, Status> {
    if body.is_empty() {
        return Ok(Decoded {
            object: Value::Null,
            duplicates: Vec::new(),
        });
    }
    let decoded = match format {
        Format::Json => json(body)?,
        Format::Yaml => Decoded {
            object: yaml(body)?,
            duplicates: Vec::new(),
        },
        Format::Protobuf => {
            let object = protobuf::decode(body).map_err(|error| match error {
                protobuf::Error::Unknown { .. } | protobuf::Error::Encoding(_) => {
                    Status::new(415, "UnsupportedMediaType", error.to_string())
                }
                _ => bad(telemetry::chain(&error)),
            })?;
            Decoded {
                object,
                duplicates: Vec::new(),
            }
        }
    };
    if decoded.object.is_object() {
        Ok(decoded)
    } else {
        Err(bad("the body of the request is no object"))
    }
}

/// Reads YAML (or JSON) text.
pub(crate) fn yaml(body: &[u8]) -> Result<Value, Status> {
    let text = std::str::from_utf8(body).map_err(|_| bad("the body of the request is not valid UTF-8"))?;
    let options = serde_saphyr::options! { legacy_octal_numbers: true };
    serde_saphyr::from_str_with_options(text, options)
        .map_err(|error| bad(format!("the body of the request is no valid YAML: {error}")))
}

/// Reads JSON text.
pub(crate) fn json(body: &[u8]) -> Result<Decoded, Status> {
    let duplicates = RefCell::new(Vec::new());
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let object = Seed {
        duplicates: &duplicates,
        path: None,
    }
    .deserialize(&mut deserializer)
    .and_then(|value| deserializer.end().map(|()| value))
    .map_err(|error| bad(format!("the body of the request is no valid JSON: {error}")))?;
    Ok(Decoded {
        object,
        duplicates: duplicates.into_inner(),
    })
}

/// The way to a value, for the name of a field. Made into text only when a duplicate is found.
enum Path<'a> {
    Field(Option<&'a Path<'a>>, &'a str),
    Item(Option<&'a Path<'a>>, usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(None, name) => f.write_str(name),
            Self::Field(Some(up), name) => write!(f, "{up}.{name}"),
            Self::Item(None, at) => write!(f, "[{at}]"),
            Self::Item(Some(up), at) => write!(f, "{up}[{at}]"),
        }
    }
}

struct Seed<'a> {
    duplicates: &'a RefCell<Vec<String>>,
    path: Option<&'a Path<'a>>,
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
        Ok(Value::Bool(v))
    }

    fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_u64<E>(self, v: u64) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_f64<E: serde::de::Error>(self, v: f64) -> Result<Value, E> {
        Number::from_f64(v)
            .map(Value::Number)
            .ok_or_else(|| E::custom("a number out of range"))
    }

    fn visit_str<E>(self, v: &str) -> Result<Value, E> {
        Ok(Value::String(v.to_owned()))
    }

    fn visit_string<E>(self, v: String) -> Result<Value, E> {
        Ok(Value::String(v))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        loop {
            let path = Path::Item(self.path, items.len());
            let Some(item) = seq.next_element_seed(Seed {
                duplicates: self.duplicates,
                path: Some(&path),
            })?
            else {
                break;
            };
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = access.next_key::<String>()? {
            let path = Path::Field(self.path, &key);
            let value = access.next_value_seed(Seed {
                duplicates: self.duplicates,
                path: Some(&path),
            })?;
            if map.contains_key(&key) {
                let mut duplicates = self.duplicates.borrow_mut();
                if duplicates.len() >= MAX_DUPLICATES {
                    return Err(A::Error::custom("too many fields that occur twice"));
                }
                duplicates.push(path.to_string());
            }
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests;
