//! Which versions of the ABI this weir speaks.

use crate::refusal::Refusal;

/// Whether this weir speaks that version of the ABI.
pub(crate) fn speaks((major, minor): (u32, u32)) -> bool {
    major == weir_abi::MAJOR && (0..=weir_abi::MINOR).contains(&minor)
}

/// The refusal of a plugin, `subject`, that was built for the version `abi`.
pub(crate) fn foreign(subject: &str, abi: &str) -> Refusal {
    let speaks = match weir_abi::MINOR {
        0 => format!("{}.0", weir_abi::MAJOR),
        minor => format!("{0}.0 to {0}.{minor}", weir_abi::MAJOR),
    };
    let major = abi
        .split_once('.')
        .and_then(|(major, _)| major.parse().ok());
    Refusal::new(
        "E0505",
        format!("{subject} needs plugin ABI {abi}, and this weir speaks {speaks}"),
        if major.unwrap_or(weir_abi::MAJOR) >= weir_abi::MAJOR {
            "take a newer weir, or a plugin that was built for this one"
        } else {
            "take a plugin that was built for this weir"
        },
    )
}
