//! What (c)'s bits hang on has a name.

use super::emulated::{self, PLAIN, run, say};
use super::{device, machine};
use weir_kernels::{Dtype, Kernels};

#[test]
#[ignore = "a case, run by the test below"]
fn case_kind() {
    if emulated::inside() {
        let kinds = [Dtype::F32, Dtype::F16, Dtype::Bf16].map(|dtype| match device().kind(dtype) {
            Ok(kind) => kind,
            Err(error) => error.to_string(),
        });
        say("kinds", kinds.join(", "));
    }
}

#[test]
fn a_device_names_its_architecture_and_the_kernel_that_its_bits_hang_on() {
    for (capability, kinds) in [
        ((8, 0), "sm_80 mma, sm_80 mma, sm_80 mma"),
        ((8, 6), "sm_86 mma, sm_86 mma, sm_86 mma"),
        ((9, 0), "sm_90a mma, sm_90a wgmma, sm_90a wgmma"),
    ] {
        let outcome = run(PLAIN, &machine(capability, 0, true), "kind::case_kind").passed();
        assert_eq!(outcome.said("kinds"), kinds);
    }
    let outcome = run(PLAIN, &machine((7, 5), 0, true), "kind::case_kind").passed();
    assert!(
        outcome
            .said("kinds")
            .contains("on a device of 7.5; use the processor")
    );
}
