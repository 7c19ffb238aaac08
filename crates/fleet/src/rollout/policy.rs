//! What a rollout policy says: waves, batches, windows, gates, budget. As people write it, checked.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use utoipa::ToSchema;

use super::window::Window;
use crate::{Selector, model::Map};

/// Waves that a policy may have.
pub const MOST_WAVES: usize = 50;
/// The name of the wave of the sites that no other wave takes.
pub const REST: &str = "rest";

/// How a commit reaches the sites that follow this policy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Rules {
    /// In order. Sites that match none are a last wave by themselves, called `rest`.
    #[serde(default)]
    pub waves: Vec<Wave>,
    /// When a site may be told, by its own clock; always, if there is none.
    #[serde(default)]
    pub window: Option<Window>,
    /// When a site counts as succeeded or failed.
    #[serde(default)]
    pub gate: Gate,
    /// How many sites may fail before the rollout halts: `"3"`, or `"2%"` of the sites that can be reached.
    /// None, if it is not said: the first failure halts.
    #[serde(default = "Amount::none")]
    #[schema(value_type = String, example = "2%")]
    pub failure_budget: Amount,
}

/// Sites that get a commit together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Wave {
    /// For people; unique in the policy.
    pub name: String,
    /// Labels of its sites, for example `tier=canary`. A site is in the first wave that matches.
    #[serde(default)]
    pub selector: String,
    /// Sites that are told at once: `"5"`, `"10%"` of those that can be reached, `"all"`.
    #[serde(default)]
    #[schema(value_type = String, example = "10%")]
    pub batch: Amount,
    /// At least this long from one batch to the next.
    #[serde(default)]
    #[schema(value_type = String, example = "10m")]
    pub pace: Span,
    /// Whether a person has to approve the wave before it opens.
    #[serde(default)]
    pub approval: bool,
}

/// When a site that was told counts as succeeded or failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Gate {
    /// Healthy at the commit for this long without a break: succeeded.
    #[schema(value_type = String, example = "10m")]
    pub healthy_for: Span,
    /// Failing at the commit for this long without a break: failed.
    #[schema(value_type = String, example = "2m")]
    pub failing_for: Span,
    /// Reachable for this long in all and not succeeded: failed.
    #[schema(value_type = String, example = "1h")]
    pub timeout: Span,
    /// Not reachable for this long without a break: it is waited for no longer. A host that restarts is back before.
    #[schema(value_type = String, example = "10m")]
    pub away_after: Span,
}

impl Default for Gate {
    fn default() -> Self {
        Self {
            healthy_for: Span::minutes(5),
            failing_for: Span::minutes(2),
            timeout: Span::minutes(60),
            away_after: Span::minutes(10),
        }
    }
}

/// A length of time, written `10m`, `1h30m`, `90s`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

impl Span {
    /// So many minutes.
    #[must_use]
    pub const fn minutes(minutes: u64) -> Self {
        Self(Duration::from_secs(minutes * 60))
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&kinds::duration::format(self.0))
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        kinds::duration::parse(&text)
            .map(Self)
            .map_err(|e| D::Error::custom(format!("{text:?} is no length of time such as \"10m\": {e}")))
    }
}

/// A part of a number of sites.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Amount {
    /// Every one.
    #[default]
    All,
    /// So many.
    Count(u32),
    /// Hundredths of a percent.
    Percent(u32),
}

impl Amount {
    /// None at all.
    #[must_use]
    pub const fn none() -> Self {
        Self::Count(0)
    }

    /// How many of `whole` that is, rounded down.
    #[must_use]
    pub fn of(self, whole: usize) -> usize {
        match self {
            Self::All => whole,
            Self::Count(count) => usize::try_from(count).unwrap_or(usize::MAX),
            Self::Percent(hundredths) => {
                let part = u128::from(hundredths) * (whole as u128) / 10_000;
                usize::try_from(part).unwrap_or(usize::MAX)
            }
        }
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Count(count) => write!(f, "{count}"),
            Self::Percent(hundredths) => match (hundredths / 100, hundredths % 100) {
                (whole, 0) => write!(f, "{whole}%"),
                (whole, part) => {
                    let part = format!("{part:02}");
                    write!(f, "{whole}.{}%", part.trim_end_matches('0'))
                }
            },
        }
    }
}

/// Why an amount can't be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither a number, nor a percentage such as \"10%\", nor \"all\"")]
pub struct AmountError(String);

impl FromStr for Amount {
    type Err = AmountError;

    fn from_str(text: &str) -> Result<Self, AmountError> {
        let wrong = || AmountError(text.chars().take(40).collect());
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        if text == "all" {
            return Ok(Self::All);
        }
        let Some(percent) = text.strip_suffix('%') else {
            return text
                .parse()
                .ok()
                .filter(|_| digits(text))
                .map(Self::Count)
                .ok_or_else(wrong);
        };
        let (whole, part) = percent.split_once('.').unwrap_or((percent, "0"));
        if !digits(whole) || !digits(part) || part.len() > 2 {
            return Err(wrong());
        }
        let part: u32 = format!("{part:0<2}").parse().map_err(|_| wrong())?;
        whole
            .parse::<u32>()
            .ok()
            .filter(|whole| *whole <= 100)
            .map(|whole| whole * 100 + part)
            .filter(|hundredths| *hundredths <= 10_000)
            .map(Self::Percent)
            .ok_or_else(wrong)
    }
}

impl Serialize for Amount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Text(String),
            Number(u32),
        }
        match Written::deserialize(deserializer)? {
            Written::Text(text) => text.parse().map_err(D::Error::custom),
            Written::Number(count) => Ok(Self::Count(count)),
        }
    }
}

impl Rules {
    /// Everything that is wrong: field and message.
    #[must_use]
    pub fn check(&self) -> Vec<(String, String)> {
        let mut wrong = Vec::new();
        if self.waves.len() > MOST_WAVES {
            wrong.push(("waves".into(), format!("there are more than {MOST_WAVES} waves")));
        }
        for (at, wave) in self.waves.iter().enumerate() {
            let field = |name: &str| format!("waves[{at}].{name}");
            if !crate::selector::is_label_value(&wave.name) || wave.name.is_empty() {
                let message = "a name has letters, digits, `-`, `_` and `.`, at most 63";
                wrong.push((field("name"), message.into()));
            }
            if wave.name == REST || self.waves[..at].iter().any(|other| other.name == wave.name) {
                wrong.push((field("name"), format!("there is another wave {:?}", wave.name)));
            }
            match Selector::parse(&wave.selector) {
                Ok(_) => {}
                Err(crate::Error::Invalid { message, .. }) => wrong.push((field("selector"), message)),
                Err(error) => wrong.push((field("selector"), error.to_string())),
            }
            if matches!(wave.batch, Amount::Count(0) | Amount::Percent(0)) {
                wrong.push((field("batch"), "a batch has at least one site".into()));
            }
        }
        if let Some(window) = &self.window {
            wrong.extend(
                window
                    .check()
                    .into_iter()
                    .map(|(f, m)| (format!("window.{f}"), m)),
            );
        }
        if self.gate.timeout < self.gate.healthy_for {
            let message = "it is shorter than healthyFor, so that no site could succeed";
            wrong.push(("gate.timeout".into(), message.into()));
        }
        wrong
    }

    /// How many waves there are, that of the rest included.
    #[must_use]
    pub fn count(&self) -> usize {
        self.waves.len() + 1
    }

    /// A wave; the last one is that of the rest, which is told as the wave before it.
    #[must_use]
    pub fn wave(&self, at: usize) -> Wave {
        self.waves.get(at).cloned().unwrap_or_else(|| {
            let before = self.waves.last();
            Wave {
                name: REST.into(),
                batch: before.map_or(Amount::All, |wave| wave.batch),
                pace: before.map_or_else(Span::default, |wave| wave.pace),
                ..Wave::default()
            }
        })
    }

    /// The selectors of all waves; one that can't be read takes no site.
    #[must_use]
    pub fn selectors(&self) -> Vec<Option<Selector>> {
        self.waves
            .iter()
            .map(|wave| Selector::parse(&wave.selector).ok())
            .collect()
    }
}

/// The wave of a site with these labels.
#[must_use]
pub fn wave_of(selectors: &[Option<Selector>], labels: &Map) -> usize {
    selectors
        .iter()
        .position(|selector| selector.as_ref().is_some_and(|s| s.matches(labels)))
        .unwrap_or(selectors.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn amounts() {
        for (text, of_250) in [
            ("all", Some(250)),
            ("5", Some(5)),
            ("10%", Some(25)),
            ("2.5%", Some(6)),
            ("0.25%", Some(0)),
            ("100%", Some(250)),
            ("101%", None),
            ("100.01%", None),
            ("-1", None),
            ("+1", None),
            ("", None),
            ("%", None),
            ("1.234%", None),
            ("99999999999", None),
        ] {
            let amount: Option<Amount> = text.parse().ok();
            assert_eq!(amount.map(|a| a.of(250)), of_250, "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_its_field() {
        let rules: Rules = serde_json::from_str(
            r#"{"waves":[{"name":"a","selector":"x=","batch":"0"},{"name":"a","selector":"x="},
                {"name":"rest","selector":"= y"},{"name":""}],
                "window":{"days":["mon"],"from":"22:00","to":"25:00"},"gate":{"healthyFor":"2h"}}"#,
        )
        .unwrap();
        let fields: Vec<String> = rules.check().into_iter().map(|(field, _)| field).collect();
        assert_eq!(
            fields,
            [
                "waves[0].batch",
                "waves[1].name",
                "waves[2].name",
                "waves[2].selector",
                "waves[3].name",
                "window.to",
                "gate.timeout"
            ]
        );
    }

    proptest! {
        #[test]
        fn amounts_are_read_back(n in 0..10_001_u32, kind in 0..3) {
            let amount = match kind { 0 => Amount::All, 1 => Amount::Count(n), _ => Amount::Percent(n) };
            prop_assert_eq!(amount.to_string().parse(), Ok(amount));
        }
    }
}
