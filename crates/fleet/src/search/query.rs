//! Reading queries, and the SQL of each term.

use std::fmt;

use crate::{
    db::Sql,
    selector::{is_label_key, is_label_value},
};

/// Bytes that a query may have.
pub const MOST_BYTES: usize = 512;
/// Terms that a query may have.
pub const MOST_TERMS: usize = 16;

/// What is wrong with a query, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SearchError {
    /// The byte in the text where it goes wrong.
    pub at: usize,
    /// The character, from 1, for people.
    pub column: usize,
    /// What is wrong and what would be right.
    pub message: String,
}

impl SearchError {
    fn new(text: &str, at: usize, message: impl Into<String>) -> Self {
        Self {
            at,
            column: text.get(..at).map_or(at, |before| before.chars().count()) + 1,
            message: message.into(),
        }
    }
}

impl fmt::Display for SearchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at character {}: {}", self.column, self.message)
    }
}

impl std::error::Error for SearchError {}

impl From<SearchError> for crate::Error {
    fn from(error: SearchError) -> Self {
        Self::invalid("q", error.to_string())
    }
}

/// A query: all its terms hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// The terms.
    pub terms: Vec<Term>,
}

/// A term.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Term {
    /// Whether it must not hold.
    pub not: bool,
    /// What is looked for.
    pub what: What,
}

/// What a term looks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A word or phrase anywhere, whatever its case.
    Text(String),
    /// A label, and its value if one is asked for.
    Label(String, Option<String>),
    /// A condition and its status.
    Condition(Condition, bool),
    /// A field.
    Field(Field, String),
}

/// What is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// Sites.
    Site,
    /// Hosts.
    Host,
    /// Virtual machines.
    Vm,
    /// Commits: the newest of each branch, and those of rollouts.
    Commit,
}

impl Target {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Site, Self::Host, Self::Vm, Self::Commit];

    /// The word in queries and answers.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Site => "site",
            Self::Host => "host",
            Self::Vm => "vm",
            Self::Commit => "commit",
        }
    }
}

/// A condition that can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Everything that is wanted is there and works.
    Ready,
    /// The configuration is what is wanted.
    Compliant,
    /// It can be reached.
    Online,
    /// Somebody changed something behind Selvedge's back.
    Drift,
    /// It refuses a commit.
    Quarantined,
}

const CONDITIONS: [(&str, Condition); 5] = [
    ("Ready", Condition::Ready),
    ("Compliant", Condition::Compliant),
    ("Online", Condition::Online),
    ("Drift", Condition::Drift),
    ("Quarantined", Condition::Quarantined),
];

macro_rules! fields {
    ($($(#[$doc:meta])* $name:ident $word:literal;)*) => {
        /// A field that can be asked for.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Field { $($(#[$doc])* $name,)* }

        impl Field {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The word in queries.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self { $(Self::$name => $word,)* }
            }
        }
    };
}

fields! {
    /// `site`, `host`, `vm` or `commit`.
    Kind "kind";
    /// The beginning of a name.
    Name "name";
    /// The name of the site it belongs to.
    Site "site";
    /// The name of the host it is on.
    Host "host";
    /// The name of its repository.
    Repository "repository";
    /// The name of its rollout policy.
    Policy "policy";
    /// Healthy, failing, offline, …
    State "state";
    /// Online, stale, offline, never.
    Connection "connection";
    /// Expected, pending, enrolled, revoked.
    Phase "phase";
    /// The beginning of the commit that it is at.
    Commit "commit";
    /// The beginning of a serial number.
    Serial "serial";
    /// The beginning of a machine's UUID.
    Uuid "uuid";
    /// The beginning of a MAC address.
    Mac "mac";
    /// A part of a version of what runs on it.
    Version "version";
    /// Whether somebody changed something behind Selvedge's back.
    Drift "drift";
    /// The name of a virtual machine that it has.
    Vm "vm";
    /// A virtual machine's class.
    Class "class";
    /// A part of a virtual machine's image.
    Image "image";
    /// A virtual machine's power state.
    Power "power";
    /// The beginning of an address.
    Ip "ip";
}

impl Query {
    /// Reads a query.
    ///
    /// # Errors
    /// What is wrong, and where.
    pub fn parse(text: &str) -> Result<Self, SearchError> {
        if text.len() > MOST_BYTES {
            let message = format!(
                "a query has at most {MOST_BYTES} bytes; this one has {}",
                text.len()
            );
            return Err(SearchError::new(
                text,
                text.floor_char_boundary(MOST_BYTES),
                message,
            ));
        }
        if let Some(at) = text.find(|c: char| c.is_control() && !c.is_whitespace()) {
            return Err(SearchError::new(text, at, "this character can't be searched for"));
        }
        let mut terms = Vec::new();
        let mut at = 0;
        loop {
            let rest = &text[at..];
            at += rest.len() - rest.trim_start().len();
            if at == text.len() {
                return Ok(Self { terms });
            }
            if terms.len() == MOST_TERMS {
                return Err(SearchError::new(
                    text,
                    at,
                    format!("a query has at most {MOST_TERMS} terms"),
                ));
            }
            terms.push(term(text, &mut at)?);
        }
    }

    /// Whether it finds everything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }

    /// The kinds that it asks for.
    pub fn targets(&self) -> impl Iterator<Item = Target> {
        Target::ALL.into_iter().filter(|target| {
            self.terms.iter().all(|term| match &term.what {
                What::Field(Field::Kind, kind) => (target.word() == kind) != term.not,
                _ => true,
            })
        })
    }

    /// Adds ` AND …` for each term to a statement over one kind of thing; `false` (and the statement must not be
    /// run) if a term makes no sense there. Aliases of tables: `s` site, `h` host, `v` vm, `c` commit. The statement's
    /// first argument must be the tenant: an inner SELECT that names `$1` is worked out once, one that names a column
    /// of the outer row for each row.
    pub fn condition(&self, target: Target, sql: &mut Sql) -> bool {
        self.terms.iter().all(|term| {
            if matches!(term.what, What::Field(Field::Kind, _)) {
                return true;
            }
            sql.push(if term.not { " AND NOT (" } else { " AND (" });
            let fits = term.what.condition(target, sql);
            sql.push(")");
            fits
        })
    }
}

fn term(text: &str, at: &mut usize) -> Result<Term, SearchError> {
    let not = text[*at..].starts_with('-');
    if not {
        *at += 1;
        if text[*at..].chars().next().is_none_or(char::is_whitespace) {
            return Err(SearchError::new(text, *at, "a term is missing after `-`"));
        }
    }
    let start = *at;
    let rest = &text[start..];
    let word = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
    let is_field = word > 0 && rest[word..].starts_with(':');
    if !is_field {
        let value = value(text, at)?;
        return Ok(Term {
            not,
            what: What::Text(value.to_lowercase()),
        });
    }
    let name = &rest[..word];
    *at = start + word + 1;
    let value_at = *at;
    if text[value_at..].chars().next().is_none_or(char::is_whitespace) {
        return Err(SearchError::new(
            text,
            value_at,
            format!("a value is missing after `{name}:`"),
        ));
    }
    let value = value(text, at)?;
    let wrong = |message: String| SearchError::new(text, value_at, message);
    let what = match name {
        "label" => label(&value).ok_or_else(|| {
            wrong(format!(
                "`{value}` is no label; write label:region=eu, label:region for any value"
            ))
        })?,
        "condition" => condition(&value).map_err(wrong)?,
        _ => {
            let field = Field::ALL.iter().find(|field| field.word() == name);
            let Some(field) = field else {
                let known: Vec<&str> = Field::ALL.iter().map(|field| field.word()).collect();
                let message = format!(
                    "there is no field `{name}`; there are label, condition, {}. Write \"{name}:…\" in quotes to look for the text",
                    known.join(", ")
                );
                return Err(SearchError::new(text, start, message));
            };
            What::Field(*field, checked(*field, value).map_err(wrong)?)
        }
    };
    Ok(Term { not, what })
}

/// A word, or a phrase in quotes (`\"` and `\\` inside).
fn value(text: &str, at: &mut usize) -> Result<String, SearchError> {
    let start = *at;
    let rest = &text[start..];
    if !rest.starts_with('"') {
        let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
        *at += end;
        return Ok(rest[..end].to_owned());
    }
    let mut value = String::new();
    let mut chars = rest.char_indices().skip(1);
    while let Some((offset, c)) = chars.next() {
        match c {
            '"' => {
                *at = start + offset + 1;
                if text[*at..].chars().next().is_some_and(|c| !c.is_whitespace()) {
                    return Err(SearchError::new(text, *at, "a space is missing after the quote"));
                }
                if value.trim().is_empty() {
                    return Err(SearchError::new(text, start, "there is nothing in the quotes"));
                }
                return Ok(value);
            }
            '\\' => match chars.next() {
                Some((_, c @ ('"' | '\\'))) => value.push(c),
                _ => {
                    let message = "in quotes, `\\` stands before `\"` or `\\`";
                    return Err(SearchError::new(text, start + offset, message));
                }
            },
            c => value.push(c),
        }
    }
    Err(SearchError::new(text, start, "the quote is not closed"))
}

fn label(text: &str) -> Option<What> {
    let (key, value) = match text.split_once('=') {
        Some((key, value)) => (key, Some(value)),
        None => (text, None),
    };
    (is_label_key(key) && value.is_none_or(is_label_value))
        .then(|| What::Label(key.to_owned(), value.map(str::to_owned)))
}

fn condition(text: &str) -> Result<What, String> {
    let (name, status) = text.split_once('=').unwrap_or((text, "True"));
    let known = CONDITIONS
        .iter()
        .find(|(known, _)| known.eq_ignore_ascii_case(name));
    let Some((_, condition)) = known else {
        let known: Vec<&str> = CONDITIONS.iter().map(|(name, _)| *name).collect();
        return Err(format!(
            "there is no condition `{name}`; there are {}",
            known.join(", ")
        ));
    };
    match status.to_ascii_lowercase().as_str() {
        "true" => Ok(What::Condition(*condition, true)),
        "false" => Ok(What::Condition(*condition, false)),
        _ => Err(format!("`{status}` is neither True nor False")),
    }
}

fn checked(field: Field, value: String) -> Result<String, String> {
    let one_of = |words: &[&str]| {
        let found = words.iter().find(|word| word.eq_ignore_ascii_case(&value));
        found
            .map(|word| (*word).to_owned())
            .ok_or_else(|| format!("`{value}` is none of {}", words.join(", ")))
    };
    match field {
        Field::Kind => one_of(&["site", "host", "vm", "commit"]),
        Field::State => one_of(&[
            "pending",
            "healthy",
            "progressing",
            "degraded",
            "failing",
            "stale",
            "offline",
        ]),
        Field::Connection => one_of(&["never", "online", "stale", "offline"]),
        Field::Phase => one_of(&["expected", "pending", "enrolled", "revoked"]),
        Field::Power => one_of(&["poweredOn", "poweredOff", "suspended"]),
        Field::Drift => one_of(&["true", "false"]),
        Field::Commit => {
            let hexadecimal = value.bytes().all(|b| b.is_ascii_hexdigit());
            if hexadecimal && (4..=64).contains(&value.len()) {
                Ok(value.to_ascii_lowercase())
            } else {
                Err(format!("`{value}` is no commit: 4 to 64 hexadecimal digits"))
            }
        }
        // Names are DNS labels, and what machines are known by is kept in lower case.
        Field::Mac
        | Field::Uuid
        | Field::Serial
        | Field::Ip
        | Field::Version
        | Field::Image
        | Field::Name
        | Field::Site
        | Field::Host
        | Field::Repository
        | Field::Policy
        | Field::Vm => Ok(value.to_lowercase()),
        _ => Ok(value),
    }
}

/// A LIKE pattern; `%` and `_` in the text stand for themselves.
fn pattern(before: &str, text: &str) -> String {
    let mut pattern = String::from(before);
    for c in text.chars() {
        if matches!(c, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern.push('%');
    pattern
}

impl What {
    fn condition(&self, target: Target, sql: &mut Sql) -> bool {
        match self {
            Self::Text(text) => {
                sql.push(match target {
                    Target::Site => "s.words",
                    Target::Host => "h.words",
                    Target::Vm => "v.words",
                    Target::Commit => "LOWER(c.subject)",
                });
                like(sql, &pattern("%", text));
                if target == Target::Commit {
                    sql.push(" OR c.id");
                    like(sql, &pattern("", text));
                }
                true
            }
            Self::Label(key, value) => {
                let (table, column, alias) = match target {
                    Target::Site => ("site_label", "site", "s.id"),
                    Target::Host => ("host_label", "host", "h.id"),
                    Target::Vm | Target::Commit => return false,
                };
                let own = |sql: &mut Sql, table: &str, column: &str, alias: &str| {
                    sql.push(&format!(
                        "{alias} IN (SELECT {column} FROM {table} WHERE tenant=$1 AND label="
                    ));
                    sql.bind(key.as_str());
                    if let Some(value) = value {
                        sql.push(" AND value=").bind(value.as_str());
                    }
                    sql.push(")");
                };
                own(sql, table, column, alias);
                if target == Target::Host {
                    sql.push(" OR ");
                    own(sql, "site_label", "site", "h.site");
                }
                true
            }
            Self::Condition(condition, status) => {
                let Some(text) = condition.sql(target) else {
                    return false;
                };
                sql.push(if *status { "" } else { "NOT (" }).push(text);
                sql.push(if *status { "" } else { ")" });
                true
            }
            Self::Field(field, value) => field.condition(value, target, sql),
        }
    }
}

fn like(sql: &mut Sql, pattern: &str) {
    sql.push(" LIKE ").bind(pattern).push(" ESCAPE '\\'");
}

impl Condition {
    fn sql(self, target: Target) -> Option<&'static str> {
        Some(match (self, target) {
            (Self::Ready, Target::Site) => "s.state='healthy'",
            (Self::Ready, Target::Host) => "h.state='healthy'",
            (Self::Ready, Target::Vm) => "v.ready=1",
            (Self::Online, Target::Site) => "s.hosts_online>0",
            (Self::Online, Target::Host) => "h.connection='online'",
            (Self::Compliant, Target::Host) => "h.compliance='compliant'",
            (Self::Compliant, Target::Site) => {
                "NOT EXISTS (SELECT 1 FROM host x WHERE x.tenant=s.tenant AND x.site=s.id AND x.compliance<>'compliant')"
            }
            (Self::Drift, Target::Host) => "h.drift=1",
            (Self::Drift, Target::Site) => {
                "EXISTS (SELECT 1 FROM host x WHERE x.tenant=s.tenant AND x.site=s.id AND x.drift=1)"
            }
            (Self::Quarantined, Target::Host) => "h.quarantined<>'[]'",
            (Self::Quarantined, Target::Site) => {
                "EXISTS (SELECT 1 FROM host x WHERE x.tenant=s.tenant AND x.site=s.id AND x.quarantined<>'[]')"
            }
            _ => return None,
        })
    }
}

impl Field {
    fn condition(self, value: &str, target: Target, sql: &mut Sql) -> bool {
        use Target::{Commit, Host, Site, Vm};
        let named = |sql: &mut Sql, column: &str| {
            sql.push(column).push("=").bind(value);
            true
        };
        let prefix = |sql: &mut Sql, column: &str| {
            sql.push(column);
            like(sql, &pattern("", value));
            true
        };
        let part = |sql: &mut Sql, column: &str| {
            sql.push(column);
            like(sql, &pattern("%", value));
            true
        };
        match (self, target) {
            (Self::Name, Site) => prefix(sql, "s.name"),
            (Self::Name, Host) => prefix(sql, "h.name"),
            (Self::Name, Vm) => prefix(sql, "v.name"),
            (Self::Site, Site | Host | Vm) => named(sql, "s.name"),
            (Self::Host, Host | Vm) => named(sql, "h.name"),
            (Self::Repository, Site | Host) => {
                sql.push("s.repository IN (SELECT id FROM repository WHERE tenant=$1 AND name=");
                sql.bind(value).push(")");
                true
            }
            (Self::Repository, Commit) => named(sql, "r.name"),
            (Self::Policy, Site | Host) => {
                sql.push("s.policy IN (SELECT id FROM policy WHERE tenant=$1 AND name=");
                sql.bind(value).push(")");
                true
            }
            (Self::State, Site) => named(sql, "s.state"),
            (Self::State, Host) => named(sql, "h.state"),
            (Self::Connection, Host | Vm) => named(sql, "h.connection"),
            (Self::Phase, Host) => named(sql, "h.phase"),
            (Self::Commit, Site) => prefix(sql, "s.applied"),
            (Self::Commit, Host) => prefix(sql, "h.applied"),
            (Self::Commit, Commit) => prefix(sql, "c.id"),
            (Self::Serial, Host) => prefix(sql, "h.serial"),
            (Self::Uuid, Host) => prefix(sql, "h.uuid"),
            (Self::Mac, Host) => {
                sql.push("h.id IN (SELECT host FROM host_mac WHERE tenant=$1 AND mac");
                like(sql, &pattern("", value));
                sql.push(")");
                true
            }
            (Self::Version, Host) => part(sql, "LOWER(h.versions)"),
            (Self::Drift, Host) => {
                sql.push(if value == "true" { "h.drift=1" } else { "h.drift=0" });
                true
            }
            (Self::Vm, Host) => {
                sql.push("h.id IN (SELECT host FROM vm WHERE tenant=$1 AND name=")
                    .bind(value);
                sql.push(")");
                true
            }
            (Self::Vm, Vm) => named(sql, "v.name"),
            (Self::Class, Vm) => named(sql, "v.class"),
            (Self::Image, Vm) => part(sql, "LOWER(v.image)"),
            (Self::Power, Vm) => named(sql, "v.power"),
            (Self::Ip, Vm) => prefix(sql, "v.ip"),
            (Self::Ip, Host) => prefix(sql, "h.address"),
            _ => false,
        }
    }
}

impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, term) in self.terms.iter().enumerate() {
            if at > 0 {
                f.write_str(" ")?;
            }
            f.write_str(if term.not { "-" } else { "" })?;
            match &term.what {
                What::Text(text) => quote(f, text, true)?,
                What::Label(key, None) => write!(f, "label:{key}")?,
                What::Label(key, Some(value)) => write!(f, "label:{key}={value}")?,
                What::Condition(condition, status) => {
                    let name = CONDITIONS
                        .iter()
                        .find(|(_, c)| c == condition)
                        .map_or("", |(name, _)| name);
                    write!(f, "condition:{name}={}", if *status { "True" } else { "False" })?;
                }
                What::Field(field, value) => {
                    write!(f, "{}:", field.word())?;
                    quote(f, value, false)?;
                }
            }
        }
        Ok(())
    }
}

fn quote(f: &mut fmt::Formatter<'_>, text: &str, alone: bool) -> fmt::Result {
    let plain = !text.contains(|c: char| c.is_whitespace() || c == '"' || (alone && (c == ':' || c == '-')));
    if plain && !text.is_empty() {
        return f.write_str(text);
    }
    write!(f, "\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests;
