//! The name that was probably meant.

/// The nearest of `names` to `word`, when it is near enough to be a slip of the pen: one edit in each four characters, an
/// exchange of neighbours counting as one.
pub fn nearest<'a>(word: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Longer words are no slips of the pen, and the table below is quadratic.
    if word.chars().count() > 64 {
        return None;
    }
    names
        .into_iter()
        .filter(|name| *name != word && name.chars().count() <= 64)
        .map(|name| (distance(word, name), name))
        .filter(|(edits, name)| {
            *edits <= 1 + name.chars().count() / 4 && *edits < word.chars().count()
        })
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, name)| name)
}

/// Insertions, deletions, replacements and exchanges of neighbours from `a` to `b`.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut table = vec![vec![0usize; b.len() + 1]; a.len() + 1];
    for (i, row) in table.iter_mut().enumerate() {
        row[0] = i;
    }
    for (j, cell) in table[0].iter_mut().enumerate() {
        *cell = j;
    }
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let differs = usize::from(a[i - 1] != b[j - 1]);
            let mut least = (table[i - 1][j] + 1)
                .min(table[i][j - 1] + 1)
                .min(table[i - 1][j - 1] + differs);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(table[i - 2][j - 2] + 1);
            }
            table[i][j] = least;
        }
    }
    table[a.len()][b.len()]
}

/// `a, b and c`.
pub fn list<S: AsRef<str>>(names: &[S]) -> String {
    match names {
        [] => String::from("none"),
        [one] => one.as_ref().to_owned(),
        [first @ .., last] => {
            let first: Vec<&str> = first.iter().map(AsRef::as_ref).collect();
            format!("{} and {}", first.join(", "), last.as_ref())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_mended_and_other_words_left_alone() {
        let names = ["overlap", "size", "tissue", "tissue-min"];
        assert_eq!(nearest("overlp", names), Some("overlap"));
        assert_eq!(nearest("tisseu", names), Some("tissue"));
        assert_eq!(nearest("szie", names), Some("size"));
        assert_eq!(nearest("magnification", names), None);
        assert_eq!(
            nearest("x", ["y"]),
            None,
            "one letter for one letter is no slip"
        );
    }
}
