//! YAML text to nodes that know where they stand.
//!
//! The scanner and the grammar are `granit-parser` (as re-exported by `serde-saphyr`); this file composes
//! its events, because we need what a plain decoder does not give: the position of every field, kubectl's
//! meaning of plain scalars, refusal of duplicate keys, and budgets that fit repositories.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};
use serde_saphyr::granit_parser::{self, Event, Marker, Parser, ScalarStyle, Span, Tag};

use crate::{
    manifest::{Limits, ParseError},
    scalar,
};

/// A place in a file: line and column from 1, and the offset in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) line: usize,
    pub(crate) column: usize,
    pub(crate) offset: usize,
}

/// One document of a file.
#[derive(Debug)]
pub(crate) struct Document {
    pub(crate) root: Node,
    /// The place of its first content.
    pub(crate) mark: Mark,
}

/// A value with its place.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) kind: Kind,
    pub(crate) mark: Mark,
    /// How it is written, if it is a scalar.
    pub(crate) style: Option<ScalarStyle>,
    /// The text of a boolean that only YAML 1.1 takes for one (`yes`, `on`, `n`, …).
    word: Option<Box<str>>,
}

/// What stands around a node in a manifest: in some places only text makes sense, and there a word such as
/// `yes` or `on` is text, as it is to Flux. Elsewhere it is a boolean, as it is to kubectl.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    Root,
    Metadata,
    /// A map of text to text: labels, annotations, the data of a ConfigMap.
    Texts,
    /// The list of a container's variables, and one of them.
    Variables,
    Variable,
    Other,
}

impl Place {
    fn below(self, key: &str) -> Self {
        match (self, key) {
            (Self::Root, "metadata") => Self::Metadata,
            (Self::Root, "data" | "stringData" | "binaryData")
            | (Self::Metadata, "labels" | "annotations") => Self::Texts,
            (_, "env") => Self::Variables,
            _ => Self::Other,
        }
    }

    fn wants_text(self, key: &str) -> bool {
        self == Self::Texts || (self == Self::Variable && key == "value")
    }
}

#[derive(Clone, Debug)]
pub(crate) enum Kind {
    Scalar(Value),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: String,
    /// The place of the key.
    pub(crate) mark: Mark,
    pub(crate) value: Node,
    /// Came in by `<<`; a key written in the map itself wins over it.
    merged: bool,
}

impl Node {
    /// The value of a document, without the places.
    pub(crate) fn into_value(self) -> Value {
        self.into_value_at(Place::Root)
    }

    fn into_value_at(self, place: Place) -> Value {
        match self.kind {
            Kind::Scalar(value) => value,
            Kind::List(items) => {
                let place = if place == Place::Variables {
                    Place::Variable
                } else {
                    Place::Other
                };
                Value::Array(items.into_iter().map(|item| item.into_value_at(place)).collect())
            }
            Kind::Map(entries) => {
                let mut map = Map::new();
                for Entry { key, value, .. } in entries {
                    let value = match value.word {
                        Some(word) if place.wants_text(&key) => Value::String(word.into()),
                        _ => value.into_value_at(place.below(&key)),
                    };
                    map.insert(key, value);
                }
                Value::Object(map)
            }
        }
    }

    /// The value at a key, if this is a map.
    pub(crate) fn get(&self, key: &str) -> Option<&Entry> {
        match &self.kind {
            Kind::Map(entries) => entries.iter().find(|e| e.key == key),
            _ => None,
        }
    }

    pub(crate) fn is_null(&self) -> bool {
        matches!(self.kind, Kind::Scalar(Value::Null))
    }
}

/// All documents of a file.
pub(crate) fn documents(file: &str, text: &str, limits: &Limits) -> Result<Vec<Document>, ParseError> {
    let mut composer = Composer::new(file, text, limits);
    let options = granit_parser::options! {
        emit_comments: false,
        flow_nesting_limit: limits.depth,
        block_nesting_limit: limits.depth,
        simple_key_max_lookahead: 4096,
    };
    for event in Parser::new_from_str_with_options(text, options) {
        let (event, span) = event.map_err(|e| ParseError::at(file, text, mark(e.marker()), &e.info()))?;
        composer.take(event, &span)?;
    }
    Ok(composer.documents)
}

fn mark(marker: &Marker) -> Mark {
    Mark {
        line: marker.line(),
        column: marker.col() + 1,
        offset: marker.byte_offset().unwrap_or_default(),
    }
}

/// A collection that is being read.
struct Frame {
    node: Node,
    anchor: usize,
    /// The key that waits for its value, and whether it is a merge key.
    key: Option<(String, Mark, bool)>,
}

struct Composer<'t> {
    file: &'t str,
    text: &'t str,
    limits: &'t Limits,
    documents: Vec<Document>,
    stack: Vec<Frame>,
    /// Anchored nodes of this document with their number of nodes.
    anchors: HashMap<usize, (Node, usize)>,
    nodes: usize,
    aliased: usize,
    root: Option<Node>,
}

impl<'t> Composer<'t> {
    fn new(file: &'t str, text: &'t str, limits: &'t Limits) -> Self {
        Self {
            file,
            text,
            limits,
            documents: Vec::new(),
            stack: Vec::new(),
            anchors: HashMap::new(),
            nodes: 0,
            aliased: 0,
            root: None,
        }
    }

    fn error(&self, at: Mark, message: impl AsRef<str>) -> ParseError {
        ParseError::at(self.file, self.text, at, message.as_ref())
    }

    fn take(&mut self, event: Event<'_>, span: &Span) -> Result<(), ParseError> {
        let at = mark(&span.start);
        match event {
            Event::DocumentStart(..) => {
                self.anchors.clear();
                self.root = None;
                Ok(())
            }
            Event::DocumentEnd => {
                let Some(root) = self.root.take() else {
                    return Ok(());
                };
                if self.documents.len() >= self.limits.documents {
                    return Err(self.error(
                        at,
                        format!("more than {} documents in one file", self.limits.documents),
                    ));
                }
                let mark = root.mark;
                self.documents.push(Document { root, mark });
                Ok(())
            }
            Event::Scalar(text, style, anchor, tag) => {
                let value = self.scalar(&text, style, tag.as_deref(), at)?;
                let merge_key = style == ScalarStyle::Plain && text == "<<";
                let word = value.is_boolean() && !matches!(&*text.to_ascii_lowercase(), "true" | "false");
                let word = word.then(|| text.as_ref().into());
                let node = Node {
                    kind: Kind::Scalar(value),
                    mark: at,
                    style: Some(style),
                    word,
                };
                self.count(at, 1)?;
                if anchor != 0 {
                    let size = size(&node);
                    self.anchors.insert(anchor, (node.clone(), size));
                }
                self.put(node, merge_key)
            }
            Event::SequenceStart(_, anchor, _) => self.open(Kind::List(Vec::new()), at, anchor),
            Event::MappingStart(_, anchor, _) => self.open(Kind::Map(Vec::new()), at, anchor),
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            Event::Alias(id) => {
                let Some((node, size)) = self.anchors.get(&id) else {
                    return Err(self.error(at, "an alias inside the node that it stands for"));
                };
                let (mut node, size) = (node.clone(), *size);
                self.aliased = self.aliased.saturating_add(size);
                if self.aliased > self.limits.alias_nodes {
                    let most = self.limits.alias_nodes;
                    return Err(self.error(at, format!("aliases stand for more than {most} values")));
                }
                node.mark = at;
                self.count(at, size)?;
                self.put(node, false)
            }
            _ => Ok(()),
        }
    }

    fn count(&mut self, at: Mark, nodes: usize) -> Result<(), ParseError> {
        self.nodes = self.nodes.saturating_add(nodes);
        if self.nodes > self.limits.nodes {
            return Err(self.error(at, format!("more than {} values in one file", self.limits.nodes)));
        }
        Ok(())
    }

    fn open(&mut self, kind: Kind, mark: Mark, anchor: usize) -> Result<(), ParseError> {
        if self.stack.len() >= self.limits.depth {
            return Err(self.error(mark, format!("nested deeper than {}", self.limits.depth)));
        }
        self.count(mark, 1)?;
        self.stack.push(Frame {
            node: Node {
                kind,
                mark,
                style: None,
                word: None,
            },
            anchor,
            key: None,
        });
        Ok(())
    }

    fn close(&mut self) -> Result<(), ParseError> {
        let Some(mut frame) = self.stack.pop() else {
            return Ok(());
        };
        if let Kind::Map(entries) = &mut frame.node.kind
            && let Some(twice) = settle(entries)
        {
            let (key, at) = (twice.key.clone(), twice.mark);
            return Err(self.error(at, format!("the key \"{key}\" is there twice")));
        }
        if frame.anchor != 0 {
            let size = size(&frame.node);
            // Copies of nested anchors are memory too, so they count as what they could become.
            self.aliased = self.aliased.saturating_add(size);
            if self.aliased > self.limits.alias_nodes {
                let most = self.limits.alias_nodes;
                return Err(self.error(
                    frame.node.mark,
                    format!("anchors stand for more than {most} values"),
                ));
            }
            self.anchors.insert(frame.anchor, (frame.node.clone(), size));
        }
        self.put(frame.node, false)
    }

    fn put(&mut self, node: Node, merge_key: bool) -> Result<(), ParseError> {
        let Some(frame) = self.stack.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        match (&mut frame.node.kind, frame.key.take()) {
            (Kind::List(items), _) => items.push(node),
            (Kind::Map(_), None) => {
                let Some(key) = key_text(&node) else {
                    return Err(self.error(node.mark, "a key must be text, a number or a boolean"));
                };
                frame.key = Some((key, node.mark, merge_key));
            }
            (Kind::Map(entries), Some((_, mark, true))) => {
                if !merge(entries, node) {
                    return Err(self.error(mark, "`<<` needs a map, or a list of maps"));
                }
            }
            (Kind::Map(entries), Some((key, mark, false))) => {
                entries.push(Entry {
                    key,
                    mark,
                    value: node,
                    merged: false,
                });
            }
            (Kind::Scalar(_), _) => {}
        }
        Ok(())
    }

    fn scalar(
        &self,
        text: &str,
        style: ScalarStyle,
        tag: Option<&Tag>,
        at: Mark,
    ) -> Result<Value, ParseError> {
        let wrong = |kind: &str| self.error(at, format!("`{text}` is not {kind}"));
        match tag.and_then(Tag::core_suffix) {
            Some("str" | "timestamp") => return Ok(Value::String(text.into())),
            Some("int") => {
                return scalar::number(text)
                    .filter(|n| !n.is_f64())
                    .map(Value::Number)
                    .ok_or_else(|| wrong("an integer"));
            }
            Some("float") => {
                return scalar::number(text)
                    .map(Value::Number)
                    .ok_or_else(|| wrong("a number"));
            }
            Some("bool") => {
                return scalar::resolve(text)
                    .filter(Value::is_boolean)
                    .ok_or_else(|| wrong("a boolean"));
            }
            Some("null") => return Ok(Value::Null),
            Some("binary") => {
                use base64::Engine as _;
                let compact: String = text.chars().filter(|c| !c.is_whitespace()).collect();
                let bytes = base64::engine::general_purpose::STANDARD.decode(compact);
                let decoded = bytes.ok().and_then(|b| String::from_utf8(b).ok());
                return decoded.map(Value::String).ok_or_else(|| wrong("base64 of text"));
            }
            _ => {}
        }
        let custom = tag.is_some_and(|t| !t.is_yaml_core_schema());
        if style != ScalarStyle::Plain || custom {
            return Ok(Value::String(text.into()));
        }
        scalar::resolve(text).ok_or_else(|| self.error(at, format!("`{text}` has no place in JSON")))
    }
}

/// The text of a key, as kubectl makes it from keys that are no text. Words such as `on` stay words: no
/// field is called `true`.
fn key_text(node: &Node) -> Option<String> {
    if let Some(word) = &node.word {
        return Some(word.to_string());
    }
    match &node.kind {
        Kind::Scalar(Value::String(text)) => Some(text.clone()),
        Kind::Scalar(Value::Number(number)) => Some(number.to_string()),
        Kind::Scalar(Value::Bool(yes)) => Some(yes.to_string()),
        _ => None,
    }
}

/// Takes the entries of a `<<` in; what came in earlier wins. False if it is no map.
fn merge(entries: &mut Vec<Entry>, node: Node) -> bool {
    match node.kind {
        Kind::Map(more) => {
            for mut entry in more {
                entry.merged = true;
                if !entries.iter().any(|e| e.merged && e.key == entry.key) {
                    entries.push(entry);
                }
            }
            true
        }
        Kind::List(maps) => maps
            .into_iter()
            .all(|map| matches!(map.kind, Kind::Map(_)) && merge(entries, map)),
        Kind::Scalar(_) => false,
    }
}

/// Lets written keys win over merged ones. Gives the second of two written keys of one name.
fn settle(entries: &mut Vec<Entry>) -> Option<&Entry> {
    let mut written = HashSet::with_capacity(entries.len());
    let twice = entries
        .iter()
        .position(|e| !e.merged && !written.insert(e.key.as_str()));
    if let Some(twice) = twice {
        return entries.get(twice);
    }
    if entries.iter().any(|e| e.merged) {
        let written: HashSet<String> = written.into_iter().map(String::from).collect();
        entries.retain(|e| !e.merged || !written.contains(&e.key));
    }
    None
}

fn size(node: &Node) -> usize {
    match &node.kind {
        // Long text counts by its length, so that copying it a thousand times is seen too.
        Kind::Scalar(Value::String(text)) => 1 + text.len() / 64,
        Kind::Scalar(_) => 1,
        Kind::List(items) => 1 + items.iter().map(size).sum::<usize>(),
        Kind::Map(entries) => 1 + entries.iter().map(|e| 1 + size(&e.value)).sum::<usize>(),
    }
}
