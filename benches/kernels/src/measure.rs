//! One case measured: cold times, error, bits.

use crate::Fault;
use crate::bits;
use crate::case::{Case, Kernel};
use crate::ceilings::Processor;
use crate::clock::{Patience, sample, time};
use crate::cost::{Ceilings, cost};
use crate::nvtx::Ranges;
use crate::oracle;
use crate::record::Measured;
use crate::work::Work;
use std::time::{Duration, Instant};
use weir_kernels::{Cause, KernelError, Kernels};

/// What cases are measured with.
#[derive(Debug)]
pub struct Bench<'a> {
    /// The kernels.
    pub kernels: &'a dyn Kernels,
    /// The same on another number of threads; must give the same bits.
    pub other: Option<&'a dyn Kernels>,
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
        // In turns with the kernel, so that what else the machine does weighs on both.
        let beside = work.case.kernel == Kernel::Pool && !work.case.backward;
        let mut reads = Vec::new();
        let mut kernels = Vec::new();
        let samples = sample(patience, |number| {
            let set = number % work.sets.len();
            self.processor.flush();
            let (done, took) = time(|| work.run(self.kernels, set, &mut out));
            done?;
            if beside && self.kernels.device() == "cpu" {
                self.processor.flush();
                let features = &work.sets[set]["features"];
                reads.push(time(|| self.processor.read(features)).1);
                kernels.push(took);
            }
            Ok(took)
        })?;
        found.timed(&work.case, &samples, &cost(&work.case), ceilings);
        if !reads.is_empty() {
            reads.sort_by(f64::total_cmp);
            found.of_read = Some(samples.median() / reads[reads.len() / 2]);
        }
        Ok(())
    }
}

enum Trouble {
    Refused(KernelError),
    Fault(Fault),
}

impl From<Fault> for Trouble {
    fn from(fault: Fault) -> Trouble {
        Trouble::Fault(fault)
    }
}

/// What a kernel will not do is a row of the table; what the driver failed in is an error.
fn refused(error: KernelError) -> Trouble {
    match error.cause {
        Cause::Driver { .. } => Trouble::Fault(error.into()),
        _ => Trouble::Refused(error),
    }
}
