//! On what was measured: processor, load, date, program.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::time::{SystemTime, UNIX_EPOCH};

/// What stands at the head of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Machine {
    /// `cpu` or `cuda:0`.
    pub device: String,
    /// The processor's or the card's name.
    pub name: String,
    /// Threads of the processor.
    pub threads: usize,
    /// Cores of the processor.
    pub cores: usize,
    /// Last cache of the processor, or L2 of the card, bytes.
    pub cache: usize,
    /// Load of the machine at the start.
    pub load: String,
    /// Driver, for a card.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    /// Where a kernel's code came from, for a card: the cache, a compiler, the program's PTX.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compiler: Option<String>,
    /// Clocks before the first case, for a card: multiprocessors, memory, temperature, power.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clocks: Option<String>,
    /// SHA-256 of the program, its first 12 digits.
    pub program: String,
    /// Version of weir.
    pub version: String,
    /// UTC.
    pub date: String,
    /// The command.
    pub command: String,
}

impl Machine {
    /// The processor of this machine.
    pub fn processor(threads: usize, command: &str) -> Machine {
        let cpu = read("/proc/cpuinfo");
        let name = cpu
            .lines()
            .find_map(|line| line.strip_prefix("model name"))
            .map_or("unknown processor", |rest| {
                rest.trim_start_matches([' ', '\t', ':'])
            });
        let load = read("/proc/loadavg");
        Machine {
            device: "cpu".into(),
            name: name.into(),
            threads,
            cores: std::thread::available_parallelism().map_or(1, |n| n.get()),
            cache: last_cache(),
            load: load.split_whitespace().next().unwrap_or("?").into(),
            program: program(),
            version: env!("CARGO_PKG_VERSION").into(),
            date: now(),
            command: command.into(),
            ..Machine::default()
        }
    }

    /// In one line.
    pub fn line(&self) -> String {
        let mut words = vec![format!("{} ({})", self.device, self.name)];
        if self.device == "cpu" {
            words.push(format!("{} of {} cores", self.threads, self.cores));
        }
        words.push(format!("last cache {} MiB", self.cache >> 20));
        if let Some(driver) = &self.driver {
            words.push(format!("driver {driver}"));
        }
        if let Some(compiler) = &self.compiler {
            words.push(format!("code: {compiler}"));
        }
        if let Some(clocks) = &self.clocks {
            words.push(format!("clocks {clocks}"));
        }
        words.push(format!("load {}", self.load));
        words.push(format!(
            "weir {} (program hash {})",
            self.version, self.program
        ));
        words.push(self.date.clone());
        words.join(", ")
    }
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// Size of the last cache; 32 MiB where the system does not say.
fn last_cache() -> usize {
    (0..5)
        .filter_map(|index| {
            let size = read(&format!(
                "/sys/devices/system/cpu/cpu0/cache/index{index}/size"
            ));
            let kibibytes: usize = size.trim().strip_suffix('K')?.parse().ok()?;
            Some(kibibytes << 10)
        })
        .max()
        .unwrap_or(32 << 20)
}

fn program() -> String {
    let bytes = std::env::current_exe().and_then(std::fs::read);
    bytes.map_or("unknown".into(), |bytes| {
        let hash = Sha256::digest(bytes);
        hash.iter().take(6).map(|b| format!("{b:02x}")).collect()
    })
}

/// Now, as `2026-03-01 12:00 UTC`.
fn now() -> String {
    let seconds = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    date(seconds)
}

/// Civil date of a count of seconds since 1970 (H. Hinnant, "chrono-compatible low-level date algorithms").
fn date(seconds: u64) -> String {
    let (day, rest) = (seconds / 86_400, seconds % 86_400);
    let z = day + 719_468;
    let (era, of_era) = (z / 146_097, z % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let of_month = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + u64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{of_month:02} {:02}:{:02} UTC",
        rest / 3600,
        rest % 3600 / 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(date(0), "1970-01-01 00:00 UTC");
        assert_eq!(date(951_782_400), "2000-02-29 00:00 UTC");
        assert_eq!(date(1_767_225_540), "2025-12-31 23:59 UTC");
    }
}
