//! The CUDA sources that are in the program, and the PTX that was made of them.
//!
//! A source is a file of `kernels/cuda`; it includes its neighbours (`*.cuh`) alone, which NVRTC is given in memory.
//! One line near its top says what it needs:
//!
//! ```text
//! // Needs: sm_80            (that architecture or a later one)
//! // Needs: sm_90a           (that architecture alone)
//! ```
//!
//! Without the line it needs [`OLDEST`]. `make kernels` makes the PTX of `kernels/ptx`, one file a target
//! (`pool.compute_75.ptx`); its first line holds the hash of what it was made of, so that a stale one is never loaded.

use sha2::{Digest, Sha256};
use std::fmt;

include!(concat!(env!("OUT_DIR"), "/sources.rs"));

/// The oldest architecture that any kernel is made for: Turing.
pub const OLDEST: Architecture = Architecture {
    major: 7,
    minor: 5,
    specific: false,
};

/// Options with which every source is compiled, by NVRTC on the user's machine and by `make kernels`.
///
/// `--fmad=false`: the contract is multiply, then add. Kernels that want a fused one say so by name.
pub const OPTIONS: [&str; 3] = ["--std=c++17", "--fmad=false", "-default-device"];

/// A header, as the sources include it.
#[derive(Clone, Copy, Debug)]
pub struct Header {
    /// As `device.cuh`.
    pub name: &'static str,
    /// Its text.
    pub text: &'static str,
}

/// PTX that was made of a source.
#[derive(Clone, Copy, Debug)]
pub struct Ptx {
    /// As `compute_80`.
    pub target: &'static str,
    /// Its text; the first line names the source's hash.
    pub text: &'static str,
}

/// A CUDA source.
#[derive(Clone, Copy, Debug)]
pub struct Source {
    /// The file's name without its ending.
    pub name: &'static str,
    /// Its text.
    pub text: &'static str,
    /// PTX of it, one a target.
    pub ptx: &'static [Ptx],
}

/// A GPU architecture, as sm_80, or sm_90a where the features of that one alone are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Architecture {
    /// 8 of sm_86.
    pub major: u32,
    /// 6 of sm_86.
    pub minor: u32,
    /// The `a` of sm_90a: the features that no other architecture has.
    pub specific: bool,
}

impl Architecture {
    /// Of a device's compute capability, with what that architecture alone has from 9.0 on.
    pub fn of(capability: (u32, u32)) -> Architecture {
        Architecture {
            major: capability.0,
            minor: capability.1,
            specific: capability.0 >= 9,
        }
    }

    /// Of `sm_80`, `compute_80`, `sm_90a`.
    pub fn parse(text: &str) -> Option<Architecture> {
        let number = text
            .strip_prefix("sm_")
            .or_else(|| text.strip_prefix("compute_"))?;
        let (number, specific) = match number.strip_suffix('a') {
            Some(number) => (number, true),
            None => (number, false),
        };
        let number: u32 = number.parse().ok()?;
        Some(Architecture {
            major: number / 10,
            minor: number % 10,
            specific,
        })
    }

    /// As `compute_80`.
    pub fn target(&self) -> String {
        self.to_string().replace("sm_", "compute_")
    }

    /// Whether code for `self` runs on a device of `device`.
    pub fn runs_on(&self, device: Architecture) -> bool {
        let (code, on) = ((self.major, self.minor), (device.major, device.minor));
        if self.specific {
            code == on && device.specific
        } else {
            code <= on
        }
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let specific = if self.specific { "a" } else { "" };
        write!(f, "sm_{}{}{specific}", self.major, self.minor)
    }
}

/// The source of that name.
pub fn source(name: &str) -> Option<&'static Source> {
    SOURCES.iter().find(|source| source.name == name)
}

/// Whether any source that this one is with has that name.
fn header(name: &str) -> Option<&'static Header> {
    HEADERS.iter().find(|header| header.name == name)
}

/// The names that a text includes.
fn includes(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(|line| {
        let rest = line.trim_start().strip_prefix('#')?.trim_start();
        let rest = rest.strip_prefix("include")?.trim_start();
        rest.strip_prefix('"')?.split('"').next()
    })
}

impl Source {
    /// The headers that it includes, also by another header, sorted by name.
    pub fn headers(&self) -> Vec<&'static Header> {
        let mut found: Vec<&'static Header> = Vec::new();
        let mut texts = vec![self.text];
        while let Some(text) = texts.pop() {
            for header in includes(text).filter_map(header) {
                if !found.iter().any(|one| one.name == header.name) {
                    found.push(header);
                    texts.push(header.text);
                }
            }
        }
        found.sort_by_key(|header| header.name);
        found
    }

    /// What its line `// Needs:` says.
    pub fn needs(&self) -> Architecture {
        self.text
            .lines()
            .take(40)
            .find_map(|line| {
                let rest = line.trim_start().strip_prefix("// Needs:")?;
                Architecture::parse(rest.split_whitespace().next()?)
            })
            .unwrap_or(OLDEST)
    }

    /// SHA-256 of the text, its headers and the options, in hexadecimal.
    pub fn hash(&self) -> String {
        let mut hash = Sha256::new();
        let mut put = |text: &str| {
            hash.update((text.len() as u64).to_le_bytes());
            hash.update(text);
        };
        put(self.text);
        for header in self.headers() {
            put(header.name);
            put(header.text);
        }
        for option in OPTIONS {
            put(option);
        }
        hex(&hash.finalize())
    }

    /// The PTX in the program that a device of `device` takes best, or why there is none.
    pub fn ptx_for(&self, device: Architecture) -> Result<&'static Ptx, String> {
        let best = self
            .ptx
            .iter()
            .filter_map(|ptx| Some((Architecture::parse(ptx.target)?, ptx)))
            .filter(|(target, _)| target.runs_on(device))
            .max_by_key(|(target, _)| *target);
        let Some((_, ptx)) = best else {
            let none = if self.ptx.is_empty() {
                "no PTX in this program"
            } else {
                "no PTX in this program for that architecture"
            };
            return Err(none.to_string());
        };
        if ptx.made_of() != Some(self.hash().as_str()) {
            return Err(format!(
                "the PTX in this program ({}) was made of another version of the source: `make kernels` makes it anew",
                ptx.target
            ));
        }
        Ok(ptx)
    }
}

/// The version of PTX's language that the PTX in the program is of: what [`super::probe::OLDEST_DRIVER`] takes. NVRTC names its
/// own, which is later; `make kernels` names this one, and ptxas refuses what it has not.
pub const PTX_VERSION: &str = "8.0";

/// How a PTX file's first line begins; the hash follows.
pub const PTX_MARK: &str = "// Made of: sha256 ";

impl Ptx {
    /// The hash of what it was made of.
    pub fn made_of(&self) -> Option<&'static str> {
        self.text
            .lines()
            .next()?
            .strip_prefix(PTX_MARK)?
            .split_whitespace()
            .next()
    }
}

/// Bytes in hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ptx_in_the_program_is_of_the_language_of_the_oldest_driver() {
        for source in SOURCES {
            assert!(!source.ptx.is_empty(), "{} has no PTX", source.name);
            for ptx in source.ptx {
                let version = ptx
                    .text
                    .lines()
                    .find_map(|line| line.strip_prefix(".version "));
                assert_eq!(version, Some(PTX_VERSION), "{} {}", source.name, ptx.target);
            }
        }
    }
}
