//! Tables for a person, in Markdown whose columns stand under each other.

use crate::Fault;
use crate::case::Kernel;
use crate::record::Measured;
use std::io::Write;

/// A table.
#[derive(Clone, Debug)]
pub struct Table {
    head: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// With these columns.
    pub fn new(head: &[&str]) -> Table {
        Table {
            head: head.iter().map(|word| (*word).to_owned()).collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row.
    pub fn row(&mut self, row: Vec<String>) {
        self.rows.push(row);
    }

    /// Whether it has no row.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Whether a column holds words, which stand to the left; numbers stand to the right.
    fn words(&self, c: usize) -> bool {
        let number =
            |cell: &str| cell.starts_with(|c: char| c.is_ascii_digit() || "+-<".contains(c));
        !self.rows.iter().any(|row| number(&row[c]))
    }

    /// Prints it. Columns in which nothing stands are left out.
    pub fn print(&self, out: &mut dyn Write) -> Result<(), Fault> {
        let empty = |c: &usize| self.rows.iter().all(|row| row[*c].is_empty());
        let columns: Vec<usize> = (0..self.head.len())
            .filter(|c| self.rows.is_empty() || !empty(c))
            .collect();
        let width = |c: usize| {
            let cells = self.rows.iter().map(|row| row[c].chars().count());
            cells
                .max()
                .unwrap_or(0)
                .max(self.head[c].chars().count())
                .max(2)
        };
        let widths: Vec<usize> = columns.iter().map(|&c| width(c)).collect();
        let mut line = |row: &[String]| -> Result<(), Fault> {
            let cells = columns.iter().zip(&widths).map(|(&c, &width)| {
                if self.words(c) {
                    format!("{:<width$}", row[c])
                } else {
                    format!("{:>width$}", row[c])
                }
            });
            Ok(writeln!(
                out,
                "| {} |",
                cells.collect::<Vec<_>>().join(" | ")
            )?)
        };
        line(&self.head)?;
        let rules: Vec<String> = (0..self.head.len())
            .map(|c| {
                let at = columns.iter().position(|&column| column == c);
                let width = at.map_or(0, |at| widths[at]);
                if self.words(c) {
                    "-".repeat(width)
                } else {
                    format!("{}:", "-".repeat(width.saturating_sub(1)))
                }
            })
            .collect();
        line(&rules)?;
        self.rows.iter().try_for_each(|row| line(row))
    }
}

/// Seconds, in a unit that gives three digits.
pub fn seconds(s: f64) -> String {
    if s == 0.0 {
        return "0".into();
    }
    let (value, unit) = if s < 1e-3 {
        (s * 1e6, "us")
    } else if s < 1.0 {
        (s * 1e3, "ms")
    } else {
        (s, "s")
    };
    format!("{} {unit}", three(value))
}

/// Bytes, in a unit that gives three digits.
pub fn amount(bytes: f64) -> String {
    let (value, unit) = if bytes < 1e6 {
        (bytes / 1e3, "kB")
    } else if bytes < 1e9 {
        (bytes / 1e6, "MB")
    } else {
        (bytes / 1e9, "GB")
    };
    format!("{} {unit}", three(value))
}

fn three(value: f64) -> String {
    let digits = if value < 9.995 {
        2
    } else if value < 99.95 {
        1
    } else {
        0
    };
    format!("{value:.digits$}")
}

/// The cases, a table a kernel.
pub fn print(measured: &[Measured], timed: bool, out: &mut dyn Write) -> Result<(), Fault> {
    if !timed {
        summary(measured).print(out)?;
        for found in measured.iter().filter(|found| found.failed()) {
            let why = found.wrong.clone().unwrap_or_else(|| {
                let error = found.error.unwrap_or(f64::NAN);
                let bound = found.bound;
                format!(
                    "the error of `{}` is {error:.1e}, over {bound:.0e}",
                    found.worst
                )
            });
            writeln!(out, "\n{}: WRONG: {why}", found.case)?;
        }
    }
    for kernel in Kernel::ALL.into_iter().filter(|_| timed) {
        let of: Vec<&Measured> = measured
            .iter()
            .filter(|found| found.kernel == kernel.name())
            .collect();
        if of.is_empty() {
            continue;
        }
        writeln!(out, "({}) {}\n", kernel.letter(), kernel.name())?;
        cases(&once_refused(&of)).print(out)?;
        for found in of {
            if let Some(why) = &found.wrong {
                writeln!(out, "\n{}: WRONG: {why}", found.case)?;
            }
        }
        writeln!(out)?;
    }
    // A kernel that is missing refuses every shape in the same words: once is enough.
    let mut told: Vec<(&str, String, usize)> = Vec::new();
    for found in measured {
        let Some(why) = &found.refused else { continue };
        let reason = reason(why);
        let key = format!("{}.{}", found.kernel, found.direction);
        match told.iter_mut().find(|(r, k, _)| *r == reason && *k == key) {
            Some((.., count)) => *count += 1,
            None => told.push((reason, key, 1)),
        }
    }
    for (why, kernel, count) in told {
        writeln!(out, "refused: {kernel}, {count} cases: {why}")?;
    }
    Ok(())
}

/// A row a kernel, direction, rule and type.
fn summary(measured: &[Measured]) -> Table {
    let mut table = Table::new(&[
        "kernel",
        "cases",
        "refused",
        "wrong",
        "greatest error",
        "in",
        "bound",
        "same bits",
    ]);
    let group = |found: &Measured| {
        let rule = match Kernel::ALL.into_iter().find(|k| k.name() == found.kernel) {
            Some(kernel) if kernel.has_rule() => found.rule.as_str(),
            _ => "",
        };
        let words = [&found.kernel, &found.direction, rule, &found.dtype];
        words
            .into_iter()
            .filter(|w| !w.is_empty())
            .collect::<Vec<_>>()
            .join(" ")
    };
    let mut groups: Vec<String> = measured.iter().map(group).collect();
    groups.sort();
    groups.dedup();
    for name in groups {
        let of: Vec<&Measured> = measured
            .iter()
            .filter(|found| group(found) == name)
            .collect();
        let count = |yes: &dyn Fn(&Measured) -> bool| of.iter().filter(|found| yes(found)).count();
        let refused = count(&|found| found.refused.is_some());
        let worst = of
            .iter()
            .filter_map(|found| Some((found.error?, found.worst.as_str())))
            .max_by(|a, b| a.0.total_cmp(&b.0));
        let unstable = count(&|found| found.stable == Some(false));
        table.row(vec![
            name,
            of.len().to_string(),
            refused.to_string(),
            count(&Measured::failed).to_string(),
            worst.map_or(String::new(), |(error, _)| format!("{error:.1e}")),
            worst.map_or(String::new(), |(_, what)| what.into()),
            format!("{:.0e}", of[0].bound),
            match (unstable, refused == of.len()) {
                (_, true) => String::new(),
                (0, _) => "yes".into(),
                (n, _) => format!("NO, in {n}"),
            },
        ]);
    }
    table
}

/// The cases, but of those that are refused in the same words only the first: why is said below the tables.
fn once_refused<'a>(of: &[&'a Measured]) -> Vec<&'a Measured> {
    let mut told: Vec<(&str, &str)> = Vec::new();
    let mut kept = Vec::new();
    for found in of {
        if let Some(why) = &found.refused {
            let reason = (found.direction.as_str(), reason(why));
            if told.contains(&reason) {
                continue;
            }
            told.push(reason);
        }
        kept.push(*found);
    }
    kept
}

/// A refusal without its shape.
fn reason(why: &str) -> &str {
    why.split_once("): ").map_or(why, |(_, why)| why)
}

fn cases(of: &[&Measured]) -> Table {
    let head = [
        "case",
        "median",
        "p10 - p90",
        "n",
        "GB/s",
        "TFLOP/s",
        "of",
        "share",
        "gap",
        "of a read",
        "processor",
        "error",
        "in",
        "same bits",
        "launches",
        "memory",
        "resources",
    ];
    let mut table = Table::new(&head);
    for found in of {
        let said = |text: Option<String>| text.unwrap_or_default();
        let some = |on: bool, text: String| if on { text } else { String::new() };
        let error = found.error.map(|error| {
            let over = if error > found.bound { " > bound" } else { "" };
            format!("{error:.1e}{over}")
        });
        let bits = found
            .stable
            .map(|s| if s { "yes" } else { "NO" }.to_owned());
        let mut row = vec![found.case.clone()];
        if found.median > 0.0 {
            row.extend([
                seconds(found.median),
                format!("{} - {}", seconds(found.p10), seconds(found.p90)),
                found.samples.to_string(),
                format!("{:.1}", found.gb_s),
                some(found.ceiling == "product", format!("{:.3}", found.tflop_s)),
                found.ceiling.clone(),
                format!("{:.0} %", 100.0 / found.gap),
                format!("{:.2}", found.gap),
                said(found.of_read.map(|times| format!("{times:.2} x"))),
                said(found.processor.map(seconds)),
                said(error),
                found.worst.clone(),
                said(bits),
                said(found.launches.map(|n| n.to_string())),
                said(found.memory.map(amount)),
                said(found.resources.clone()),
            ]);
        } else {
            let refused = found.refused.is_some();
            row.push(if refused { "refused" } else { "failed" }.into());
            row.resize(head.len(), String::new());
        }
        table.row(row);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_three_digits() {
        assert_eq!(seconds(1.234e-6), "1.23 us");
        assert_eq!(seconds(0.012_34), "12.3 ms");
        assert_eq!(seconds(123.4), "123 s");
        assert_eq!(amount(8.2e7), "82.0 MB");
    }

    #[test]
    fn columns_stand_under_each_other_and_empty_ones_are_left_out() {
        let mut table = Table::new(&["case", "none", "time"]);
        table.row(vec!["a".into(), String::new(), "1 ms".into()]);
        table.row(vec!["long".into(), String::new(), "10 ms".into()]);
        let mut out = Vec::new();
        assert!(table.print(&mut out).is_ok());
        let text = String::from_utf8(out).unwrap_or_default();
        assert_eq!(
            text,
            "| case |  time |\n| ---- | ----: |\n| a    |  1 ms |\n| long | 10 ms |\n"
        );
    }
}
