//! What a map or filter works on.

use std::sync::Arc;

use weir_record::{Body, Key, Lease, SlideInfo};

use super::{Columns, Turn};

/// Values of a stage's input and the outcomes that it sets: a list of each, as stages go through them.
pub struct Batch {
    keys: Vec<Key>,
    bodies: Vec<Body>,
    infos: Vec<Arc<SlideInfo>>,
    columns: Option<Arc<Columns>>,
    /// Empty where there are none, and once all were taken at once.
    leases: Vec<Option<Lease>>,
    /// Row by row, the outputs side by side; empty until one is set.
    outcomes: Vec<Option<Body>>,
    /// The outcomes are the values as they came; none is set then.
    passed: bool,
    outputs: usize,
    turn: Turn,
}

impl Batch {
    /// A batch over `rows` for a stage of `outputs` outputs; for the runtime, and for tests of a stage without it.
    pub fn new(rows: Vec<(Key, Body, Arc<SlideInfo>, Option<Lease>)>, outputs: usize) -> Self {
        let n = rows.len();
        let mut batch = Batch {
            keys: Vec::with_capacity(n),
            bodies: Vec::with_capacity(n),
            infos: Vec::with_capacity(n),
            columns: None,
            leases: Vec::new(),
            outcomes: Vec::new(),
            passed: false,
            outputs,
            turn: Turn::default(),
        };
        for (i, (key, body, info, lease)) in rows.into_iter().enumerate() {
            batch.keys.push(key);
            batch.bodies.push(body);
            batch.infos.push(info);
            if lease.is_some() {
                batch.leases.resize_with(n, || None);
                batch.leases[i] = lease;
            }
        }
        let columns = Columns::of(&batch.keys, &batch.bodies, &batch.infos);
        batch.columns = columns.map(Arc::new);
        batch
    }

    pub(crate) fn with_turn(self, turn: &Turn) -> Self {
        let turn = turn.clone();
        Batch { turn, ..self }
    }

    /// For a stage that may have to wait before it can begin.
    #[inline]
    pub fn turn(&self) -> &Turn {
        &self.turn
    }

    /// Number of rows; at least one.
    #[inline]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is no row; never the case in [`Work::run`](super::Work::run).
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Which version row `i` is.
    #[inline]
    pub fn key(&self, i: usize) -> Key {
        self.keys[i]
    }

    /// The value of row `i`.
    #[inline]
    pub fn body(&self, i: usize) -> &Body {
        &self.bodies[i]
    }

    /// Which version each row is.
    #[inline]
    pub fn keys(&self) -> &[Key] {
        &self.keys
    }

    /// The values of all rows.
    #[inline]
    pub fn bodies(&self) -> &[Body] {
        &self.bodies
    }

    /// The slide of row `i`.
    #[inline]
    pub fn info(&self, i: usize) -> &Arc<SlideInfo> {
        &self.infos[i]
    }

    /// The slide of each row.
    #[inline]
    pub fn infos(&self) -> &[Arc<SlideInfo>] {
        &self.infos
    }

    /// The rows side by side, where they are alike. Whoever keeps them beyond the batch keeps the values as well.
    #[inline]
    pub fn columns(&self) -> Option<&Arc<Columns>> {
        self.columns.as_ref()
    }

    /// Which version each row is, its value, and its slide.
    #[inline]
    pub fn rows(
        &self,
    ) -> impl ExactSizeIterator<Item = (Key, &Body, &Arc<SlideInfo>)> + Clone + use<'_> {
        let rows = self.keys.iter().zip(&self.bodies).zip(&self.infos);
        rows.map(|((key, body), info)| (*key, body, info))
    }

    /// The lease on the output of row `i`, as [`Work::output_bytes`](super::Work::output_bytes) asked; once.
    #[inline]
    pub fn take_lease(&mut self, i: usize) -> Option<Lease> {
        self.leases.get_mut(i)?.take()
    }

    /// Whether there are leases on the outputs that nobody took yet.
    #[inline]
    pub fn has_leases(&self) -> bool {
        !self.leases.is_empty()
    }

    /// The leases on the outputs of all rows; none where they were taken before.
    #[inline]
    pub fn take_leases(&mut self) -> Vec<Option<Lease>> {
        std::mem::take(&mut self.leases)
    }

    /// Sets the outcome of row `i` on output `port`: a value, Skip or Fail.
    #[inline]
    pub fn set(&mut self, i: usize, port: usize, outcome: Body) {
        if self.outcomes.is_empty() {
            self.spread();
        }
        self.outcomes[i * self.outputs..][..self.outputs][port] = Some(outcome);
    }

    /// Has a place for each outcome.
    fn spread(&mut self) {
        self.outcomes
            .reserve_exact(self.bodies.len() * self.outputs);
        for body in &self.bodies {
            let outcome = self.passed.then(|| body.clone());
            let all = std::iter::repeat_n(outcome, self.outputs);
            self.outcomes.extend(all);
        }
        self.passed = false;
    }

    /// Sets the outcome of row `i` on every output.
    pub fn set_all(&mut self, i: usize, outcome: Body) {
        for port in 0..self.outputs {
            self.set(i, port, outcome.clone());
        }
    }

    /// The outcome of every row on every output is its value as it came: noted once for all, and the values go on without a copy.
    #[inline]
    pub fn pass_all(&mut self) {
        self.outcomes.clear();
        self.passed = true;
    }

    /// The outcome that was set.
    pub fn outcome(&self, i: usize, port: usize) -> Option<&Body> {
        let body = &self.bodies[i];
        assert!(port < self.outputs, "there is no output {port}");
        match self.passed {
            true => Some(body),
            false => self.outcomes.get(i * self.outputs + port)?.as_ref(),
        }
    }

    /// Each row as a batch of its own, without outcomes.
    pub(crate) fn singles(self) -> impl Iterator<Item = Batch> {
        let (outputs, turn) = (self.outputs, self.turn);
        let mut leases = self.leases.into_iter();
        let rows = self.keys.into_iter().zip(self.bodies).zip(self.infos);
        rows.map(move |((key, body), info)| {
            let row = (key, body, info, leases.next().flatten());
            Batch::new(vec![row], outputs).with_turn(&turn)
        })
    }

    /// Which version each row was, the slide of each, and the outcomes, row by row, the outputs side by side.
    pub(crate) fn into_parts(mut self) -> (Vec<Key>, Vec<Arc<SlideInfo>>, Vec<Option<Body>>) {
        let outcomes = match self.passed && self.outputs == 1 {
            true => self.bodies.into_iter().map(Some).collect(),
            false if self.outcomes.is_empty() => {
                self.spread();
                self.outcomes
            }
            false => self.outcomes,
        };
        (self.keys, self.infos, outcomes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_record::{SlideId, SlideKey, TileId};

    fn rows() -> Vec<(Key, Body, Arc<SlideInfo>, Option<Lease>)> {
        let info = SlideInfo::unopened("a".into(), SlideKey(1), "a.svs".into());
        let info = Arc::new(info);
        let row = |rev| {
            let key = Key {
                slide: SlideId::new(0, 0),
                tile: TileId::SLIDE,
                rev,
            };
            let score = rev as f32;
            let body = Body::Picked {
                source_rev: rev,
                score,
            };
            (key, body, info.clone(), None)
        };
        (0..3).map(row).collect()
    }

    fn score(body: &Option<Body>) -> Option<f32> {
        match body {
            Some(Body::Picked { score, .. }) => Some(*score),
            _ => None,
        }
    }

    /// Of each row, its revision and the scores of its outcomes.
    fn outcomes(batch: Batch) -> Vec<(u32, Vec<Option<f32>>)> {
        let outputs = batch.outputs;
        let (keys, _, outcomes) = batch.into_parts();
        let mut outcomes = outcomes.iter().map(score);
        let rows = keys.iter();
        rows.map(|key| (key.rev, outcomes.by_ref().take(outputs).collect()))
            .collect()
    }

    #[test]
    fn every_row_has_its_own_outcomes_however_many_outputs_there_are() {
        let mut batch = Batch::new(rows(), 2);
        batch.pass_all();
        batch.set(1, 0, Body::Gone);
        batch.set(2, 1, batch.body(0).clone());
        let [zero, one, two] = [0.0, 1.0, 2.0].map(Some);
        let wanted = [
            (0, vec![zero, zero]),
            (1, vec![None, one]),
            (2, vec![two, zero]),
        ];
        assert_eq!(score(&batch.outcome(2, 0).cloned()), two);
        assert_eq!(outcomes(batch), wanted);
        // What was set before is what came.
        let mut batch = Batch::new(rows(), 2);
        assert!(batch.outcome(0, 0).is_none());
        batch.set(1, 0, Body::Gone);
        assert!(batch.outcome(0, 0).is_none());
        batch.pass_all();
        assert_eq!(score(&batch.outcome(1, 0).cloned()), one);
        let wanted = [zero, one, two].map(|it| vec![it, it]);
        let all = outcomes(batch).into_iter().map(|(_, all)| all);
        assert_eq!(all.collect::<Vec<_>>(), wanted);
        let unset = [0, 1, 2].map(|rev| (rev, vec![None, None]));
        assert_eq!(outcomes(Batch::new(rows(), 2)), unset);
        let mut sink = Batch::new(rows(), 0);
        sink.pass_all();
        let none = [(0, vec![]), (1, vec![]), (2, vec![])];
        assert_eq!(outcomes(sink), none);
    }

    #[test]
    fn a_batch_that_is_taken_apart_has_each_row_once_and_no_outcome() {
        for outputs in [0, 2] {
            let mut batch = Batch::new(rows(), outputs);
            batch.pass_all();
            let apart: Vec<_> = batch.singles().flat_map(outcomes).collect();
            let wanted = (0..3).map(|rev| (rev, vec![None; outputs]));
            assert_eq!(apart, wanted.collect::<Vec<_>>());
        }
    }
}
