//! Shared by the store's tests.
#![allow(missing_docs, unreachable_pub, reason = "a helper of tests")]

use bytes::Bytes;
use store::{Entry, Error, Key, ListQuery, Make, SqliteStore, Store};

pub fn key(resource: &str, namespace: &str, name: &str) -> Key {
    Key {
        resource: resource.into(),
        namespace: namespace.into(),
        name: name.into(),
    }
}

/// A value as the API server makes it.
pub fn value(text: &str) -> Make {
    let text = text.to_owned();
    Box::new(move |revision| json(revision, &text))
}

pub fn json(revision: u64, text: &str) -> Bytes {
    format!(r#"{{"metadata":{{"resourceVersion":"{revision}"}},"data":"{text}"}}"#).into()
}

pub fn text(value: &[u8]) -> String {
    let value: serde_json::Value = serde_json::from_slice(value).unwrap();
    value["data"].as_str().unwrap().to_owned()
}

pub async fn create(store: &SqliteStore, key: &Key, text: &str) -> Result<Entry, Error> {
    store.create(key, value(text)).await
}

pub fn all(resource: &str) -> ListQuery {
    ListQuery {
        resource: resource.into(),
        ..ListQuery::default()
    }
}

/// Small numbers that look random and are the same in every run.
pub struct Dice(pub u64);

impl Dice {
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}
