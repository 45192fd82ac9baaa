//! One case measured: cold times, error, bits.

use crate::Fault;
use crate::bits;
use crate::case::{Case, Kernel};
use crate::ceilings::Processor;
use crate::clock::{Patience, Samples, sample, time};
use crate::cost::{Ceilings, cost};
use crate::device::{Card, Resident};
use crate::nvtx::Ranges;
use crate::oracle;
use crate::record::Measured;
use crate::shapes::Outputs;
use crate::work::Work;
use std::time::{Duration, Instant};
use weir_kernels::{Cause, KernelError, Kernels};

/// What cases are measured with.
pub struct Bench<'a> {
    /// The kernels.
    pub kernels: &'a dyn Kernels,
    /// The same on another number of threads; must give the same bits.
    pub other: Option<&'a dyn Kernels>,
    /// The device, where it is one; `kernels` are its stream's.
    pub card: Option<&'a Card>,
    /// The processor's kernels, whose time stands beside a device's.
    pub beside: Option<&'a dyn Kernels>,
    /// The processor's threads.
    pub processor: &'a Processor,
    /// How many.
    pub threads: usize,
    /// Limits; `None`: only right or wrong is asked.
    pub ceilings: Option<Ceilings>,
    /// Ranges for a profiler.
    pub ranges: &'a Ranges,
    /// Size of the last cache, bytes.
    pub cache: usize,
    /// Seconds that a case's samples may take.
    pub limit: f64,
    /// When the bench began.
    pub begun: Instant,
}

impl Bench<'_> {
    /// Measures a case. A kernel's refusal is part of what is found, not an error.
    pub fn measure(&self, case: &Case) -> Result<Measured, Fault> {
        let begun = Instant::now();
        let device = self.kernels.device();
        let mut found = Measured::of(case, &device, self.threads);
        found.begun = (begun - self.begun).as_secs_f64();
        let _range = self.ranges.range(&found.case);
        let size = Work::size(case).max(1);
        let sets = match self.ceilings {
            None => 1,
            Some(_) => (2 * self.cache / size + 1).clamp(1, 4),
        };
        let mut work = Work::new(*case, sets, size as u64)?;
        match self.fill(&mut work, &mut found) {
            Ok(()) => {}
            Err(Trouble::Refused(error)) => found.refused = Some(error.to_string()),
            Err(Trouble::Broken(error)) => found.wrong = Some(error.to_string()),
            Err(Trouble::Fault(fault)) => return Err(fault),
        }
        found.took = begun.elapsed().as_secs_f64();
        Ok(found)
    }

    fn fill(&self, work: &mut Work, found: &mut Measured) -> Result<(), Trouble> {
        work.prepare(self.kernels).map_err(refused)?;
        let mut out = work.outputs();
        let (done, took) = time(|| work.run(self.kernels, 0, &mut out));
        done.map_err(refused)?;
        let checked = oracle::check(work, &out)?;
        found.error = checked.error;
        found.worst = checked.worst.into();
        found.wrong = checked.wrong;
        // What takes long is run alone once, not three times.
        let alone = if took > 0.2 { 1 } else { 3 };
        let differs = bits::stable(work, self.kernels, self.other, &out, alone)?;
        found.stable = Some(differs.is_none());
        if found.wrong.is_none() {
            found.wrong = differs;
        }
        let Some(ceilings) = &self.ceilings else {
            return Ok(());
        };
        let patience = Patience {
            least: 5,
            most: 101,
            limit: Duration::from_secs_f64(self.limit),
        };
        let samples = match self.card {
            Some(card) => self.on_card(card, work, found, patience, &out)?,
            None => self.on_processor(work, found, patience, &mut out)?,
        };
        found.timed(&work.case, &samples, &cost(&work.case), ceilings);
        Ok(())
    }

    fn on_processor(
        &self,
        work: &Work,
        found: &mut Measured,
        patience: Patience,
        out: &mut Outputs,
    ) -> Result<Samples, Fault> {
        // A plain read of the features in turns with the pool, so that what else the machine does weighs on both.
        let beside = work.case.kernel == Kernel::Pool && !work.case.backward;
        let mut reads = Vec::new();
        let samples = sample(patience, |number| {
            let set = number % work.sets.len();
            self.processor.flush();
            let (done, took) = time(|| work.run(self.kernels, set, out));
            done?;
            if beside {
                self.processor.flush();
                let features = &work.sets[set]["features"];
                reads.push(time(|| self.processor.read(features)).1);
            }
            Ok(took)
        })?;
        if !reads.is_empty() {
            found.of_read = Some(samples.least() / Samples::new(reads).least());
        }
        Ok(samples)
    }

    /// `carried` is what the call gave when its arrays lay on the host: arrays on the device must give the same bits.
    fn on_card(
        &self,
        card: &Card,
        work: &Work,
        found: &mut Measured,
        patience: Patience,
        carried: &Outputs,
    ) -> Result<Samples, Fault> {
        let mut resident = Resident::new(card.gpu(), work)?;
        let before = card.launched();
        resident.run(work, self.kernels, 0)?;
        card.stream.synchronize()?;
        let (launches, resources) = card.since(&before)?;
        found.launches = (launches > 0).then_some(launches);
        found.resources = (!resources.is_empty()).then_some(resources);
        found.memory = Some(card.memory(work, &mut resident)?);
        let there = resident.fetch(work, &card.stream)?;
        if let Some(where_) = bits::differ(carried, &there) {
            found.stable = Some(false);
            found.wrong = Some(format!("arrays on the device give other bits: {where_}"));
        }
        let samples = sample(patience, |number| {
            card.flush()?;
            card.time(|| Ok(resident.run(work, self.kernels, number)?))
        })?;
        if let Some(processor) = self.beside
            && work.case.kernel != Kernel::Gated
        {
            let mut out = work.outputs();
            let brief = Patience {
                limit: Duration::from_millis(100),
                ..patience
            };
            let times = sample(brief, |number| {
                self.processor.flush();
                let set = number % work.sets.len();
                let (done, took) = time(|| work.run(processor, set, &mut out));
                done?;
                Ok(took)
            });
            // A kernel that the processor does not have leaves its column empty.
            found.processor = times.ok().map(|times| times.median());
        }
        Ok(samples)
    }
}

enum Trouble {
    /// The kernel does not do such a case.
    Refused(KernelError),
    /// The driver or the compiler failed in it.
    Broken(KernelError),
    Fault(Fault),
}

impl From<Fault> for Trouble {
    fn from(fault: Fault) -> Trouble {
        Trouble::Fault(fault)
    }
}

fn refused(error: KernelError) -> Trouble {
    match error.cause {
        Cause::Driver { .. } => Trouble::Broken(error),
        _ => Trouble::Refused(error),
    }
}
