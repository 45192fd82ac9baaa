//! CPU time of the calling thread, which other programs on the machine disturb less than the time on the wall.

use std::time::{Duration, Instant};

/// What some work took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Took {
    /// On a processor.
    pub cpu: Duration,
    /// On the wall.
    pub wall: Duration,
}

impl std::ops::AddAssign for Took {
    fn add_assign(&mut self, other: Took) {
        self.cpu += other.cpu;
        self.wall += other.wall;
    }
}

/// Runs `work` and says what it took.
pub fn time<T>(work: impl FnOnce() -> crate::Result<T>) -> crate::Result<(T, Took)> {
    let (cpu, wall) = (thread_cpu()?, Instant::now());
    let made = work()?;
    let took = Took {
        cpu: thread_cpu()?.saturating_sub(cpu),
        wall: wall.elapsed(),
    };
    Ok((made, took))
}

/// CPU time of this thread since it began: the first number of /proc/thread-self/schedstat, ns.
pub fn thread_cpu() -> crate::Result<Duration> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let first = text.split_whitespace().next().unwrap_or_default();
    Ok(Duration::from_nanos(first.parse()?))
}

/// CPU time of this whole process, threads that have ended included, in steps of the kernel's clock tick (10 ms).
pub fn process_cpu() -> crate::Result<Duration> {
    let text = std::fs::read_to_string("/proc/self/stat")?;
    // The name in parentheses may hold anything; the numbers begin behind it (proc(5): utime and stime are 14 and 15).
    let rest = text.rsplit(')').next().unwrap_or_default();
    let ticks: Vec<u64> = rest
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(str::parse)
        .collect::<Result<_, _>>()?;
    Ok(Duration::from_millis(ticks.iter().sum::<u64>() * 10))
}

/// The processor and how busy the machine is, for the head of a table.
pub fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map_or("unknown processor", |rest| {
            rest.trim_start_matches([' ', '\t', ':'])
        });
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
    let load = read("/proc/loadavg");
    let load = load.split_whitespace().next().unwrap_or("?");
    format!("{model}, {cores} cores, load {load} at the start")
}
