//! Several numbers in one text: pipeline files have no list of numbers.

/// So many numbers, with blanks or commas between them. The error says what is wrong.
pub fn numbers<const N: usize>(text: &str) -> Result<[f64; N], String> {
    let parts = text
        .split(|c: char| c.is_whitespace() || c == ',')
        .filter(|part| !part.is_empty());
    let parsed: Result<Vec<f64>, String> = parts
        .map(|part| match part.parse::<f64>() {
            Ok(number) if number.is_finite() => Ok(number),
            _ => Err(format!("{part:?} is no number")),
        })
        .collect();
    let parsed = parsed?;
    let count = parsed.len();
    parsed
        .try_into()
        .map_err(|_| format!("it has {count} numbers, and {N} are wanted"))
}

#[cfg(test)]
mod tests {
    use super::numbers;

    #[test]
    fn blanks_and_commas_part_numbers_and_the_count_is_checked() {
        assert_eq!(numbers("0.65, 0.70 -2e-1"), Ok([0.65, 0.70, -0.2]));
        assert_eq!(
            numbers::<3>("1 2"),
            Err("it has 2 numbers, and 3 are wanted".into())
        );
        assert_eq!(numbers::<1>("x"), Err("\"x\" is no number".into()));
        assert_eq!(numbers::<1>("inf"), Err("\"inf\" is no number".into()));
    }
}
