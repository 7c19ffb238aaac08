use std::time::Duration;

use sqlx::postgres::{PgArguments, PgRow};
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{Arguments, Column, Row as _, TypeInfo, ValueRef};

use crate::Error;
use crate::model::Time;

/// A value in the database. An absent one still has its type, which PostgreSQL asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// BIGINT.
    Int(Option<i64>),
    /// DOUBLE PRECISION.
    Float(Option<f64>),
    /// TEXT.
    Text(Option<String>),
    /// BYTEA or BLOB.
    Bytes(Option<Vec<u8>>),
}

macro_rules! from {
    ($($of:ty => |$v:ident| $to:expr;)*) => {$(
        impl From<$of> for Value { fn from($v: $of) -> Self { $to } }
    )*};
}
from! {
    i64 => |v| Self::Int(Some(v));
    i32 => |v| Self::Int(Some(i64::from(v)));
    u32 => |v| Self::Int(Some(i64::from(v)));
    // Generations and counters: they start small and count up.
    u64 => |v| Self::Int(Some(i64::try_from(v).unwrap_or(i64::MAX)));
    usize => |v| Self::Int(Some(i64::try_from(v).unwrap_or(i64::MAX)));
    bool => |v| Self::Int(Some(i64::from(v)));
    Option<i64> => |v| Self::Int(v);
    Time => |v| Self::Int(Some(v.millis()));
    Option<Time> => |v| Self::Int(v.map(Time::millis));
    f64 => |v| Self::Float(Some(v));
    Option<f64> => |v| Self::Float(v);
    &str => |v| Self::Text(Some(v.to_owned()));
    &String => |v| Self::Text(Some(v.clone()));
    String => |v| Self::Text(Some(v));
    Option<&str> => |v| Self::Text(v.map(str::to_owned));
    Option<String> => |v| Self::Text(v);
    &Option<String> => |v| Self::Text(v.clone());
    &[u8] => |v| Self::Bytes(Some(v.to_vec()));
    Vec<u8> => |v| Self::Bytes(Some(v));
    &Vec<u8> => |v| Self::Bytes(Some(v.clone()));
    Option<Vec<u8>> => |v| Self::Bytes(v);
}

/// A row, decoded. Columns are counted from 0; a column of another type than asked reads as absent.
#[derive(Clone, Debug, PartialEq)]
pub struct Row(pub(crate) Vec<Value>);

impl Row {
    /// A number; 0 if absent.
    #[must_use]
    pub fn int(&self, n: usize) -> i64 {
        self.opt_int(n).unwrap_or(0)
    }

    /// A number that may be absent.
    #[must_use]
    pub fn opt_int(&self, n: usize) -> Option<i64> {
        match self.0.get(n) {
            Some(Value::Int(v)) => *v,
            _ => None,
        }
    }

    /// Whether a number is not 0.
    #[must_use]
    pub fn bool(&self, n: usize) -> bool {
        self.int(n) != 0
    }

    /// A fraction that may be absent.
    #[must_use]
    pub fn opt_float(&self, n: usize) -> Option<f64> {
        match self.0.get(n) {
            Some(Value::Float(v)) => *v,
            _ => None,
        }
    }

    /// Text; empty if absent.
    #[must_use]
    pub fn text(&self, n: usize) -> String {
        self.opt_text(n).unwrap_or_default()
    }

    /// Text, borrowed; empty if absent.
    #[must_use]
    pub fn str(&self, n: usize) -> &str {
        match self.0.get(n) {
            Some(Value::Text(Some(v))) => v,
            _ => "",
        }
    }

    /// Text that may be absent.
    #[must_use]
    pub fn opt_text(&self, n: usize) -> Option<String> {
        match self.0.get(n) {
            Some(Value::Text(v)) => v.clone(),
            _ => None,
        }
    }

    /// Bytes that may be absent.
    #[must_use]
    pub fn bytes(&self, n: usize) -> Option<Vec<u8>> {
        match self.0.get(n) {
            Some(Value::Bytes(v)) => v.clone(),
            _ => None,
        }
    }

    /// A time; 1970 if absent.
    #[must_use]
    pub fn time(&self, n: usize) -> Time {
        Time::from_millis(self.int(n))
    }

    /// A time that may be absent.
    #[must_use]
    pub fn opt_time(&self, n: usize) -> Option<Time> {
        self.opt_int(n).map(Time::from_millis)
    }

    /// JSON as text in the column; its default if it is absent or not readable.
    #[must_use]
    pub fn json<T: serde::de::DeserializeOwned + Default>(&self, n: usize) -> T {
        serde_json::from_str(self.str(n)).unwrap_or_default()
    }

    /// A word of an enumeration, as serde has it; its default if it is none.
    #[must_use]
    pub fn word<T: serde::de::DeserializeOwned + Default>(&self, n: usize) -> T {
        use serde::de::IntoDeserializer as _;
        let de: serde::de::value::StrDeserializer<'_, serde::de::value::Error> =
            self.str(n).into_deserializer();
        T::deserialize(de).unwrap_or_default()
    }
}

/// A statement with its arguments. Text is only ever our own; everything foreign goes through [`Sql::bind`].
#[derive(Clone, Debug, Default)]
pub struct Sql {
    text: Text,
    args: Vec<Value>,
}

#[derive(Clone, Debug)]
enum Text {
    Fixed(&'static str),
    Made(String),
}

impl Default for Text {
    fn default() -> Self {
        Self::Made(String::new())
    }
}

impl Sql {
    /// A fixed statement.
    #[must_use]
    pub fn fixed(text: &'static str, args: Vec<Value>) -> Self {
        Self {
            text: Text::Fixed(text),
            args,
        }
    }

    /// The start of one.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self {
            text: Text::Made(text.to_owned()),
            args: Vec::new(),
        }
    }

    /// Adds our own text.
    pub fn push(&mut self, text: &str) -> &mut Self {
        match &mut self.text {
            Text::Made(made) => made.push_str(text),
            Text::Fixed(fixed) => self.text = Text::Made(format!("{fixed}{text}")),
        }
        self
    }

    /// Adds an argument and its placeholder.
    pub fn bind(&mut self, value: impl Into<Value>) -> &mut Self {
        self.args.push(value.into());
        let placeholder = format!("${}", self.args.len());
        self.push(&placeholder)
    }

    /// Adds `($n,$m,…)`; `(NULL)`, which nothing is in, for no values.
    pub fn list<T: Clone + Into<Value>>(&mut self, values: impl IntoIterator<Item = T>) -> &mut Self {
        self.push("(");
        let mut first = true;
        for value in values {
            if !first {
                self.push(",");
            }
            first = false;
            self.bind(value);
        }
        if first {
            self.push("NULL");
        }
        self.push(")")
    }

    /// The same filter (`FROM … WHERE …`) with columns before it.
    #[must_use]
    pub fn select(&self, columns: &str) -> Self {
        let rest = match &self.text {
            Text::Fixed(text) => text,
            Text::Made(text) => text.as_str(),
        };
        Self {
            text: Text::Made(format!("SELECT {columns} {rest}")),
            args: self.args.clone(),
        }
    }

    /// How many arguments it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.args.len()
    }

    /// Whether it has no arguments.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.args.is_empty()
    }

    pub(super) fn sqlite(self) -> Result<(sqlx::SqlStr, SqliteArguments), Error> {
        use sqlx::SqlSafeStr as _;
        const LOCK: &str = " FOR UPDATE";
        let mut args = SqliteArguments::default();
        for value in self.args {
            match value {
                Value::Int(v) => args.add(v),
                Value::Float(v) => args.add(v),
                Value::Text(v) => args.add(v.map(without_nul)),
                Value::Bytes(v) => args.add(v),
            }
            .map_err(Error::Database)?;
        }
        let text = match self.text {
            Text::Fixed(text) => text.strip_suffix(LOCK).unwrap_or(text).into_sql_str(),
            Text::Made(mut text) => {
                if text.ends_with(LOCK) {
                    text.truncate(text.len() - LOCK.len());
                }
                sqlx::AssertSqlSafe(text).into_sql_str()
            }
        };
        Ok((text, args))
    }

    pub(super) fn postgres(self) -> Result<(sqlx::SqlStr, PgArguments), Error> {
        use sqlx::SqlSafeStr as _;
        let mut args = PgArguments::default();
        for value in self.args {
            match value {
                Value::Int(v) => args.add(v),
                Value::Float(v) => args.add(v),
                Value::Text(v) => args.add(v.map(without_nul)),
                Value::Bytes(v) => args.add(v),
            }
            .map_err(Error::Database)?;
        }
        let text = match self.text {
            Text::Fixed(text) => text.into_sql_str(),
            Text::Made(text) => sqlx::AssertSqlSafe(text).into_sql_str(),
        };
        Ok((text, args))
    }
}

/// PostgreSQL has no text with a NUL in it, and refuses the statement; SQLite's functions end there. Strangers put
/// it into any name that they ask for: that name is then nobody's.
fn without_nul(text: String) -> String {
    if text.contains('\0') {
        text.replace('\0', "\u{fffd}")
    } else {
        text
    }
}

pub(super) fn from_sqlite(row: &SqliteRow) -> Result<Row, Error> {
    let mut values = Vec::with_capacity(row.columns().len());
    for n in 0..row.columns().len() {
        let raw = row.try_get_raw(n).map_err(failed)?;
        let kind = raw.type_info().name().to_owned();
        values.push(match kind.as_str() {
            "INTEGER" | "BOOLEAN" => Value::Int(row.try_get(n).map_err(failed)?),
            "REAL" => Value::Float(row.try_get(n).map_err(failed)?),
            "TEXT" => Value::Text(row.try_get(n).map_err(failed)?),
            "BLOB" => Value::Bytes(row.try_get(n).map_err(failed)?),
            _ => Value::Text(None),
        });
    }
    Ok(Row(values))
}

pub(super) fn from_postgres(row: &PgRow) -> Result<Row, Error> {
    let mut values = Vec::with_capacity(row.columns().len());
    for (n, column) in row.columns().iter().enumerate() {
        values.push(match column.type_info().name() {
            "INT8" => Value::Int(row.try_get(n).map_err(failed)?),
            "INT4" => Value::Int(row.try_get::<Option<i32>, _>(n).map_err(failed)?.map(i64::from)),
            "BOOL" => Value::Int(row.try_get::<Option<bool>, _>(n).map_err(failed)?.map(i64::from)),
            "FLOAT8" => Value::Float(row.try_get(n).map_err(failed)?),
            "TEXT" | "VARCHAR" | "NAME" => Value::Text(row.try_get(n).map_err(failed)?),
            "BYTEA" => Value::Bytes(row.try_get(n).map_err(failed)?),
            other => {
                return Err(Error::Database(
                    format!("column {} has the type {other}", column.name()).into(),
                ));
            }
        });
    }
    Ok(Row(values))
}

/// What sqlx said, sorted: can't be reached or is full → [`Error::Unavailable`]; else [`Error::Database`].
pub(super) fn failed(error: sqlx::Error) -> Error {
    let unavailable = match &error {
        sqlx::Error::Io(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed
        | sqlx::Error::Protocol(_) => true,
        sqlx::Error::Database(db) => match db.code().as_deref() {
            // PostgreSQL: connection, out of resources, shutting down, starting up, read-only standby.
            Some(code) if code.len() == 5 => {
                code.starts_with("08")
                    || code.starts_with("53")
                    || code.starts_with("57P")
                    || code == "25006"
                    || code == "58030"
            }
            // SQLite: the low byte is the primary code: IOERR, FULL, CANTOPEN, READONLY.
            Some(code) => code
                .parse::<i64>()
                .is_ok_and(|c| matches!(c & 0xff, 8 | 10 | 13 | 14)),
            None => false,
        },
        _ => false,
    };
    if unavailable {
        Error::Unavailable(Box::new(error))
    } else {
        Error::Database(Box::new(error))
    }
}

/// Whether an error means that two transactions were in each other's way.
pub(super) fn collided(source: &(dyn std::error::Error + Send + Sync + 'static)) -> bool {
    let Some(sqlx::Error::Database(db)) = source.downcast_ref::<sqlx::Error>() else {
        return false;
    };
    match db.code().as_deref() {
        Some("40001" | "40P01" | "55P03") => true,
        // BUSY and LOCKED.
        Some(code) if code.len() < 5 => code.parse::<i64>().is_ok_and(|c| matches!(c & 0xff, 5 | 6)),
        _ => false,
    }
}

/// Whether an error says that a row of that key is there already.
pub(crate) fn is_unique(error: &Error) -> bool {
    let Error::Database(source) = error else {
        return false;
    };
    matches!(source.downcast_ref::<sqlx::Error>(), Some(sqlx::Error::Database(db)) if db.is_unique_violation())
}

/// A random part of `span`.
pub(super) fn jitter(span: Duration) -> Duration {
    let mut byte = [0_u8; 1];
    // Without randomness the pauses are only less spread.
    let _ = aws_lc_rs::rand::fill(&mut byte);
    span.mul_f64(f64::from(byte[0]) / 255.0)
}
