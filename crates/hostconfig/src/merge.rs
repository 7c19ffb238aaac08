//! Merging layers into one profile. Pure: the host and `selvedge validate` do the same.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Bound,
    sync::Arc,
};

use kinds::host::{entry_path, field_path, list_key};
use serde_json::{Map, Value, json};

/// A layer that can be read.
#[derive(Clone, Debug, PartialEq)]
pub struct Layer {
    /// `namespace/name` of its object.
    pub name: String,
    /// Whether it is the base layer, which all others override silently.
    pub base: bool,
    /// `{"esx": {…}}`.
    pub profile: Value,
}

/// What the layers ask for together.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Merged {
    /// `{"esx": {…}}`, shared with the sections.
    pub profile: Arc<Value>,
    /// For every value in the profile, by its path: the layers that ask for it. Lists without keys are one value.
    pub provenance: BTreeMap<String, Vec<String>>,
    /// Values that layers disagree about, by path.
    pub conflicts: Vec<Conflict>,
}

/// Layers that set one path to different values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The path, for example `esx.network_vss.switches[vSwitch1].mtu`.
    pub path: String,
    /// The layers that set it, in order. None of them is the base layer.
    pub layers: Vec<String>,
    /// The layer whose value is in force: the last one in the order of namespaces and names.
    pub winner: String,
}

impl std::fmt::Display for Conflict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { path, layers, winner } = self;
        write!(
            f,
            "{path} is set differently by {}; {winner}, the last in order, wins",
            layers.join(" and ")
        )
    }
}

/// Merges layers: the base layer first, then the others in the order of their names, whatever order they are
/// given in. Objects are merged field by field, lists with keys (switches, port groups, vmknics, …) entry by
/// entry; everything else is replaced by the later layer.
#[must_use]
pub fn merge_layers(layers: &[Layer]) -> Merged {
    let mut order: Vec<&Layer> = layers.iter().collect();
    order.sort_by(|a, b| (!a.base, &a.name).cmp(&(!b.base, &b.name)));
    let mut merge = Merge {
        owners: BTreeMap::new(),
        conflicts: BTreeMap::new(),
    };
    let mut profile = json!({"esx": {}});
    for layer in order {
        merge.value(
            &mut profile,
            &layer.profile,
            Some(kinds::host::schema()),
            "",
            layer,
        );
    }
    Merged {
        profile: Arc::new(profile),
        provenance: merge
            .owners
            .into_iter()
            .map(|(path, owner)| (path, owner.layers))
            .collect(),
        conflicts: merge
            .conflicts
            .into_iter()
            .map(|(path, layers)| Conflict {
                path,
                winner: layers.last().cloned().unwrap_or_default(),
                layers,
            })
            .collect(),
    }
}

struct Owner {
    layers: Vec<String>,
    base: bool,
}

struct Merge {
    owners: BTreeMap<String, Owner>,
    conflicts: BTreeMap<String, Vec<String>>,
}

impl Merge {
    fn value(&mut self, into: &mut Value, from: &Value, schema: Option<&Value>, path: &str, layer: &Layer) {
        match (&mut *into, from) {
            (Value::Object(into), Value::Object(from)) => self.object(into, from, schema, path, layer),
            (Value::Array(items), Value::Array(new)) => {
                let key = list_key(schema, new).filter(|key| all_have(items, key) && all_have(new, key));
                match key {
                    Some(key) => self.list(items, new, key, schema, path, layer),
                    None => self.leaf(into, from, path, layer),
                }
            }
            _ => self.leaf(into, from, path, layer),
        }
    }

    fn object(
        &mut self,
        into: &mut Map<String, Value>,
        from: &Map<String, Value>,
        schema: Option<&Value>,
        path: &str,
        layer: &Layer,
    ) {
        for (name, value) in from {
            let schema = schema.and_then(|s| s.get("properties")?.get(name));
            let path = field_path(path, name);
            let there = into.entry(name.clone()).or_insert(Value::Null);
            self.value_or_new(there, value, schema, &path, layer);
        }
    }

    fn list(
        &mut self,
        items: &mut Vec<Value>,
        new: &[Value],
        key: &str,
        schema: Option<&Value>,
        path: &str,
        layer: &Layer,
    ) {
        let schema = schema.and_then(|s| s.get("items"));
        let name = |item: &Value| item[key].as_str().unwrap_or_default().to_owned();
        let mut places: HashMap<String, usize> = items.iter().map(name).zip(0..).collect();
        for (index, entry) in new.iter().enumerate() {
            let path = entry_path(path, Some(key), index, entry);
            let at = *places.entry(name(entry)).or_insert_with(|| {
                items.push(Value::Null);
                items.len() - 1
            });
            self.value_or_new(&mut items[at], entry, schema, &path, layer);
        }
    }

    /// Merges into a place that may be new, which a null marks.
    fn value_or_new(
        &mut self,
        there: &mut Value,
        value: &Value,
        schema: Option<&Value>,
        path: &str,
        layer: &Layer,
    ) {
        if there.is_null() {
            // Build it up from nothing, so that every value in it gets its owner.
            match value {
                Value::Object(_) => *there = json!({}),
                Value::Array(items)
                    if !items.is_empty()
                        && list_key(schema, items).is_some_and(|key| all_have(items, key)) =>
                {
                    *there = json!([]);
                }
                _ => {}
            }
        }
        self.value(there, value, schema, path, layer);
        let empty = value.as_object().is_some_and(Map::is_empty);
        if empty && *there == *value {
            // An empty object has no values that could tell whose it is.
            self.own(path, layer, false);
        }
    }

    fn leaf(&mut self, into: &mut Value, from: &Value, path: &str, layer: &Layer) {
        let agree = *into == *from;
        if !agree {
            // What was inside the replaced value goes with it.
            let gone = inside(&self.owners, path);
            let was_new = into.is_null();
            let others: Vec<String> = gone
                .iter()
                .filter_map(|p| self.owners.remove(p))
                .filter(|o| !o.base)
                .flat_map(|o| o.layers)
                .collect();
            if !was_new {
                self.disagree(path, others, layer);
            }
            *into = from.clone();
        }
        self.own(path, layer, agree);
    }

    fn disagree(&mut self, path: &str, inside: Vec<String>, layer: &Layer) {
        let mut earlier = self.conflicts.remove(path).unwrap_or_default();
        if let Some(owner) = self.owners.get(path).filter(|owner| !owner.base) {
            earlier.extend(owner.layers.iter().cloned());
        }
        earlier.extend(inside);
        if earlier.is_empty() {
            return;
        }
        earlier.push(layer.name.clone());
        let mut layers: Vec<String> = Vec::new();
        for name in earlier {
            if !layers.contains(&name) {
                layers.push(name);
            }
        }
        self.conflicts.insert(path.into(), layers);
    }

    /// `layer` asks for the value at `path`, together with those who asked for the same unless they are the base.
    fn own(&mut self, path: &str, layer: &Layer, agree: bool) {
        if let Some(conflict) = self.conflicts.get_mut(path)
            && !conflict.contains(&layer.name)
        {
            conflict.push(layer.name.clone());
        }
        match self.owners.get_mut(path) {
            Some(owner) if agree && !owner.base => {
                if !owner.layers.contains(&layer.name) {
                    owner.layers.push(layer.name.clone());
                }
            }
            _ => {
                self.owners.insert(
                    path.into(),
                    Owner {
                        layers: vec![layer.name.clone()],
                        base: layer.base,
                    },
                );
            }
        }
    }
}

fn all_have(items: &[Value], key: &str) -> bool {
    items
        .iter()
        .all(|item| item.get(key).is_some_and(Value::is_string))
}

/// Whether a path is that of something inside `outer`.
pub(crate) fn is_inside(path: &str, outer: &str) -> bool {
    path.strip_prefix(outer)
        .is_some_and(|rest| rest.starts_with(['.', '[']) || (outer.is_empty() && !rest.is_empty()))
}

/// The paths of what is inside a path. In the order of the map they follow it.
fn inside<T>(owners: &BTreeMap<String, T>, path: &str) -> Vec<String> {
    let from = (Bound::Excluded(path), Bound::Unbounded);
    let after = owners
        .range::<str, _>(from)
        .map(|(p, _)| p)
        .take_while(|p| p.starts_with(path));
    after.filter(|p| is_inside(p, path)).cloned().collect()
}

impl Merged {
    /// The layers that a problem at a path is about: those that ask for the value there, or for something in it,
    /// or for the list or object that it is in; the nearest that there are.
    #[must_use]
    pub fn layers_at(&self, path: &str) -> Vec<&str> {
        let mut place = path;
        loop {
            let mut found: Vec<&str> = Vec::new();
            let owners = self
                .provenance
                .iter()
                .filter(|(p, _)| p.as_str() == place || is_inside(p, place));
            for name in owners.flat_map(|(_, layers)| layers) {
                if !found.contains(&name.as_str()) {
                    found.push(name);
                }
            }
            if !found.is_empty() || place.is_empty() {
                return found;
            }
            place = place.rfind(['.', '[']).map_or("", |end| &place[..end]);
        }
    }
}
