//! What becomes of each row of an input, on each output: made, left out or failed, and never two of them.

use std::hint::cold_path;
use std::ops::Range;
use std::sync::Arc;
use weir_abi::desk::Said;
use weir_record::Body;

/// What became of a row on an output.
#[derive(Clone, Debug, Default)]
pub(crate) enum Outcome {
    /// The plugin has not spoken of it.
    #[default]
    None,
    /// This value.
    Made(Body),
    /// The row's own value, as it came.
    Passed,
    /// It was left out on purpose.
    Skipped(Arc<str>),
    /// Nothing could be made of it.
    Failed(Box<Said>),
}

/// Of which rows a batch was asked for, on which outputs: once each, as the memory of one is leased.
#[derive(Debug, Default)]
pub(crate) struct Asked(Vec<bool>);

impl Asked {
    /// Notes rows of an input of `n` for output `port`; all are less than `n`.
    pub fn note(&mut self, port: usize, n: u32, rows: &[u32]) -> Result<(), String> {
        let (n, start) = (n as usize, port * n as usize);
        if self.0.len() < start + n {
            self.0.resize(start + n, false);
        }
        for &row in rows {
            if std::mem::replace(&mut self.0[start + row as usize], true) {
                return Err(format!("it made two rows of row {row} on one output"));
            }
        }
        Ok(())
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }
}

/// What is known of a row on an output, in a byte: most rows are passed on or made alike.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Mark {
    #[default]
    None,
    Passed,
    /// It stands in `told`.
    Told,
}

/// What became of all rows.
#[derive(Debug)]
pub(crate) struct Outcomes {
    rows: usize,
    ports: usize,
    /// Only a filter leaves rows out.
    filter: bool,
    /// Row by row, the outputs side by side; none as long as the same is known of all.
    marks: Vec<Mark>,
    /// What is known of all as long as there are no marks.
    all: Mark,
    /// So many rows are all of which nothing was said, where there is one output; else no list is as long.
    silent: usize,
    /// 0 where there is one output, else [`NEVER`].
    apart: usize,
    /// As long as the marks once one of them needs it.
    told: Vec<Outcome>,
}

/// No list has so many rows.
const NEVER: usize = usize::MAX;

impl Outcomes {
    /// Of no rows yet, on so many outputs.
    pub fn on(ports: usize, filter: bool) -> Outcomes {
        Outcomes {
            rows: 0,
            ports,
            filter,
            marks: Vec::new(),
            all: Mark::None,
            silent: NEVER,
            apart: if ports == 1 { 0 } else { NEVER },
            told: Vec::new(),
        }
    }

    /// Nothing is known of `rows` rows.
    #[inline]
    pub fn reset(&mut self, rows: usize) {
        if !(self.marks.is_empty() && self.told.is_empty()) {
            cold_path();
            self.told.clear();
            self.marks.clear();
        }
        (self.rows, self.all) = (rows, Mark::None);
        self.silent = rows | self.apart;
    }

    /// Marks for each row on each output.
    fn marked(&mut self) {
        if self.marks.is_empty() {
            self.marks.resize(self.rows * self.ports, self.all);
            self.silent = NEVER;
        }
    }

    /// A value. A row that failed on one output has failed, whichever came first.
    pub fn made(&mut self, row: u32, port: usize, body: Body) -> Result<(), String> {
        self.free(row, port)?.map_or(Ok(()), |at| {
            self.tell(at, Outcome::Made(body));
            Ok(())
        })
    }

    /// Rows' own values, as they came, where the rows are all there are in their order and nothing was said of them before: who passes
    /// rows mostly does that. Else false, and nothing is noted.
    #[inline]
    pub fn pass_all(&mut self, rows: &[u32]) -> bool {
        let in_order = || match rows {
            [row] => *row == 0,
            // Without a branch a row.
            _ => {
                let each = rows.iter().zip(0..);
                each.fold(true, |all, (row, at)| all & (*row == at))
            }
        };
        let all = rows.len() == self.silent && in_order();
        if all {
            (self.all, self.silent) = (Mark::Passed, NEVER);
        }
        all
    }

    /// Rows' own values, as they came.
    pub fn pass(&mut self, rows: &[u32], port: usize) -> Result<(), String> {
        if self.pass_all(rows) {
            return Ok(());
        }
        self.marked();
        rows.iter().try_for_each(|&row| self.passed(row, port))
    }

    fn passed(&mut self, row: u32, port: usize) -> Result<(), String> {
        let at = row as usize * self.ports + port;
        match self.marks.get_mut(at) {
            Some(mark @ Mark::None) => {
                *mark = Mark::Passed;
                Ok(())
            }
            _ => self.free(row, port).map(drop),
        }
    }

    /// Where the outcome of a row goes that has none; nowhere where it failed before.
    fn free(&mut self, row: u32, port: usize) -> Result<Option<usize>, String> {
        self.marked();
        let at = row as usize * self.ports + port;
        match self.marks.get(at) {
            Some(Mark::None) => Ok(Some(at)),
            Some(Mark::Told) if matches!(self.told[at], Outcome::Failed(_)) => Ok(None),
            Some(_) => Err(twice(row)),
            None => Err(format!("it spoke of row {row}, of which there is none")),
        }
    }

    fn tell(&mut self, at: usize, outcome: Outcome) {
        if self.told.len() < self.marks.len() {
            self.told.resize_with(self.marks.len(), Outcome::default);
        }
        self.marks[at] = Mark::Told;
        self.told[at] = outcome;
    }

    /// The row is left out, on every output.
    pub fn skipped(&mut self, row: u32, reason: &str) -> Result<(), String> {
        let own = self.of(row)?;
        if !self.filter {
            return Err(format!("a map left out row {row}"));
        }
        let failed = |at| {
            matches!(self.marks[at], Mark::Told) && matches!(self.told[at], Outcome::Failed(_))
        };
        if own.clone().all(failed) && !own.is_empty() {
            return Ok(());
        }
        if own.clone().any(|at| self.marks[at] != Mark::None) {
            return Err(twice(row));
        }
        let reason: Arc<str> = reason.into();
        for at in own {
            self.tell(at, Outcome::Skipped(reason.clone()));
        }
        Ok(())
    }

    /// The row has failed, on every output.
    pub fn failed(&mut self, row: u32, said: Said) -> Result<(), String> {
        for at in self.of(row)? {
            self.tell(at, Outcome::Failed(Box::new(said.clone())));
        }
        Ok(())
    }

    /// The places of a row.
    fn of(&mut self, row: u32) -> Result<Range<usize>, String> {
        self.marked();
        let (rows, at) = (self.marks.len() / self.ports.max(1), row as usize);
        match at < rows {
            true => Ok(at * self.ports..(at + 1) * self.ports),
            false => Err(format!("it spoke of row {row} of a batch of {rows}")),
        }
    }

    /// Whether all rows go on as they came, on every output.
    #[inline]
    pub fn all_passed(&self) -> bool {
        match self.marks.is_empty() {
            true => self.all == Mark::Passed || self.rows * self.ports == 0,
            false => self.marks.iter().all(|mark| *mark == Mark::Passed),
        }
    }

    /// All of them, as (row, output, outcome); what is left is nothing. Of a row of a filter of which nothing was said it was left
    /// out without a reason; of a map's, that it was lost: [`Outcome::None`].
    pub fn take(&mut self) -> impl Iterator<Item = (usize, usize, Outcome)> + '_ {
        self.marked();
        let (ports, filter, told) = (self.ports.max(1), self.filter, &mut self.told);
        let mut of = move |at: usize, mark: Mark| match mark {
            Mark::Passed => Outcome::Passed,
            Mark::Told => std::mem::take(&mut told[at]),
            Mark::None if filter => Outcome::Skipped("".into()),
            Mark::None => Outcome::None,
        };
        let (mut row, mut port) = (0, 0);
        self.marks.drain(..).enumerate().map(move |(at, mark)| {
            let this = (row, port, of(at, mark));
            port += 1;
            if port == ports {
                (row, port) = (row + 1, 0);
            }
            this
        })
    }
}

fn twice(row: u32) -> String {
    format!("it gave row {row} two outcomes")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcomes(filter: bool) -> Outcomes {
        let mut all = Outcomes::on(2, filter);
        all.reset(3);
        all
    }

    fn shown(outcome: &Outcome) -> String {
        match outcome {
            Outcome::None => "none".into(),
            Outcome::Made(_) | Outcome::Passed => "made".into(),
            Outcome::Skipped(reason) => reason.to_string(),
            Outcome::Failed(_) => "failed".into(),
        }
    }

    #[test]
    fn a_row_has_one_outcome_on_each_output_and_a_failure_stands_over_all() {
        let mut all = outcomes(true);
        assert_eq!(all.made(0, 0, Body::Gone), Ok(()));
        assert_eq!(all.pass(&[0], 1), Ok(()));
        assert!(all.made(0, 1, Body::Gone).is_err());
        assert!(all.skipped(0, "dark").is_err());
        assert_eq!(all.skipped(1, "dark"), Ok(()));
        assert!(all.made(1, 0, Body::Gone).is_err());
        assert_eq!(all.failed(0, Said::default()), Ok(()));
        assert_eq!(all.made(0, 0, Body::Gone), Ok(()));
        assert_eq!(all.skipped(0, "dark"), Ok(()));
        let said: Vec<String> = all.take().map(|(.., it)| shown(&it)).collect();
        let wanted = ["failed", "failed", "dark", "dark", "", ""];
        assert_eq!(said, wanted);
    }

    #[test]
    fn a_map_leaves_no_row_out_and_what_it_did_not_speak_of_is_lost() {
        let mut all = outcomes(false);
        assert!(all.skipped(0, "dark").is_err());
        assert_eq!(all.made(2, 1, Body::Gone), Ok(()));
        let lost = all
            .take()
            .filter(|(.., it)| matches!(it, Outcome::None))
            .count();
        assert_eq!(lost, 5);
    }

    #[test]
    fn rows_that_are_none_are_refused() {
        let mut all = outcomes(true);
        for row in [3, u32::MAX] {
            assert!(all.made(row, 0, Body::Gone).is_err());
            assert!(all.skipped(row, "").is_err());
            assert!(all.failed(row, Said::default()).is_err());
        }
    }
}
