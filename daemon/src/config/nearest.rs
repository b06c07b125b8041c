//! Which setting was meant by a key that no setting has.

/// Returns the candidate that `typed` most probably is, if it resembles one.
///
/// A key in a wrong or missing section is as near as one wrong letter.
pub(super) fn nearest<'a>(typed: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let last = |path: &str| path.rsplit('.').next().unwrap_or(path).to_owned();
    candidates
        .into_iter()
        .map(|candidate| {
            let whole = distance(typed, candidate);
            let is_key = last(typed) == last(candidate);
            (if is_key { whole.min(1) } else { whole }, candidate)
        })
        .min_by_key(|(distance, _)| *distance)
        // More than a third of the letters wrong is another word.
        .filter(|(distance, candidate)| distance * 3 <= candidate.len())
        .map(|(_, candidate)| candidate)
}

/// Returns how many letters must be inserted, removed or replaced to make one text of the other (Levenshtein).
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (index, from) in one.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = index + 1;
        for (column, to) in other.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: [&str; 4] = ["server.listen", "server.name", "log.level", "accounts.sign_up"];

    #[test]
    fn distances_are_counted_in_letters() {
        for (one, other, letters) in [("", "", 0), ("", "ab", 2), ("kitten", "sitting", 3), ("ä", "a", 1)] {
            assert_eq!(distance(one, other), letters, "{one} {other}");
            assert_eq!(distance(other, one), letters, "{one} {other}");
        }
    }

    #[test]
    fn typing_mistakes_and_wrong_sections_are_understood() {
        for (typed, meant) in [
            ("server.lisen", "server.listen"),
            ("sever.name", "server.name"),
            ("listen", "server.listen"),
            ("server.level", "log.level"),
            ("accounts.signup", "accounts.sign_up"),
        ] {
            assert_eq!(nearest(typed, KEYS), Some(meant), "{typed}");
        }
    }

    #[test]
    fn another_word_is_not_guessed_at() {
        assert_eq!(nearest("metrics.port", KEYS), None);
        assert_eq!(nearest("x", KEYS), None);
    }
}
