use std::collections::BTreeMap;

use crate::model::Map;
use crate::{Error, Fleet};

const PURPOSE: &str = "site-variables";

impl Fleet {
    /// The secret variables of a site, unsealed.
    pub(crate) fn secret_variables(
        &self,
        tenant: &str,
        site: &str,
        sealed: Option<Vec<u8>>,
    ) -> Result<Map, Error> {
        let Some(sealed) = sealed else {
            return Ok(Map::new());
        };
        let bytes = self.unseal(PURPOSE, tenant, site, &sealed)?;
        serde_json::from_slice(&bytes).map_err(|_| Error::Damaged {
            what: "the secret variables of a site".to_owned(),
        })
    }

    /// The secret variables with a change made to them: a value sets one, null takes it away. Sealed, with the names.
    pub(crate) fn seal_variables(
        &self,
        (tenant, site): (&str, &str),
        mut variables: Map,
        change: &BTreeMap<String, Option<String>>,
    ) -> Result<(Option<Vec<u8>>, Vec<String>), Error> {
        for (name, value) in change {
            match value {
                Some(value) => variables.insert(name.clone(), value.clone()),
                None => variables.remove(name),
            };
        }
        crate::check::variables(
            "secretVariables",
            variables.iter().map(|(name, value)| (name, value.as_str())),
        )?;
        let names = variables.keys().cloned().collect();
        if variables.is_empty() {
            return Ok((None, names));
        }
        let bytes = serde_json::to_vec(&variables).unwrap_or_default();
        Ok((Some(self.seal(PURPOSE, tenant, site, &bytes)?), names))
    }
}
