//! Numbers of a stain out of parameters.

use crate::numbers::numbers;
use crate::vector::Vector;
use weir_plugin::{Error, Result};

/// Numbers of a parameter that may be left out.
///
/// # Errors
/// When it is no list of so many numbers.
pub fn given<const N: usize>(
    name: &str,
    text: Option<&str>,
    default: [f64; N],
) -> Result<[f64; N]> {
    match text {
        Some(text) => numbers(text).map_err(|what| {
            Error::param(name, what).help(format!(
                "write {N} numbers with blanks between them, as \"{}\"",
                example(&default)
            ))
        }),
        None => Ok(default),
    }
}

/// A stain's direction.
///
/// # Errors
/// When it is no list of three numbers, or all of them are 0.
pub fn direction(name: &str, text: Option<&str>, default: Vector) -> Result<Vector> {
    let direction = given(name, text, default)?;
    if crate::vector::unit(direction).is_none() {
        return Err(
            Error::param(name, "a stain that takes no light has no direction")
                .help("give the densities in red, green and blue of one unit of the stain"),
        );
    }
    Ok(direction)
}

fn example(numbers: &[f64]) -> String {
    let texts: Vec<String> = numbers.iter().map(f64::to_string).collect();
    texts.join(" ")
}
