//! Which images to remove.

use std::collections::BTreeSet;

use super::Entry;

/// The images to remove, in this order, so that at most `keep` bytes are left. Images in use stay, whatever they take.
#[must_use]
pub fn plan<'a>(entries: &'a [Entry], in_use: &BTreeSet<&str>, keep: u64) -> Vec<&'a Entry> {
    let mut left = entries
        .iter()
        .fold(0_u64, |sum, entry| sum.saturating_add(entry.bytes));
    let mut unused: Vec<&Entry> = entries
        .iter()
        .filter(|entry| !in_use.contains(entry.key.as_str()))
        .collect();
    unused.sort_by(|a, b| a.last_used.cmp(&b.last_used).then_with(|| a.key.cmp(&b.key)));
    let mut removed = Vec::new();
    for entry in unused {
        if left <= keep {
            break;
        }
        left = left.saturating_sub(entry.bytes);
        removed.push(entry);
    }
    removed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(key: &str, bytes: u64, hour: i64) -> Entry {
        let last_used = jiff::Timestamp::from_second(hour * 3600).unwrap();
        Entry {
            key: key.into(),
            image: key.into(),
            bytes,
            last_used,
        }
    }

    #[test]
    fn the_longest_unused_go_first_and_what_is_in_use_stays() {
        let entries = [
            entry("a", 10, 3),
            entry("b", 10, 1),
            entry("c", 10, 2),
            entry("d", 10, 0),
        ];
        let plan = |in_use: &[&str], keep| -> String {
            let in_use = in_use.iter().copied().collect();
            super::plan(&entries, &in_use, keep)
                .iter()
                .map(|e| e.key.as_str())
                .collect()
        };
        assert_eq!(plan(&[], 40), "");
        assert_eq!(plan(&[], 25), "db");
        assert_eq!(plan(&["d"], 25), "bc");
        assert_eq!(plan(&["a", "b", "c", "d"], 0), "");
        assert_eq!(plan(&["a"], 0), "dbc");
    }
}
