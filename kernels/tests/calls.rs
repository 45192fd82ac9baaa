//! What a call of (a), (b) or (c) asks of the driver when all that it reads and writes lies on the device: few calls, no wait, no
//! memory, whatever is odd about the bags. A kernel over features takes some 0.1 ms; each call of the driver takes microseconds.
#![allow(clippy::unwrap_used)]

mod bags;
#[path = "emulated/mod.rs"]
mod emulated;

use bags::{Case, Odd, Results, Stored, Type, pooled};
use emulated::{Outcome, PLAIN, Setting, run, say};
use weir_kernels::attention::AttentionHead;
use weir_kernels::cuda::Gpu;
use weir_kernels::cuda::buffer::{Buffer, Number};
use weir_kernels::cuda::stream::Stream;
use weir_kernels::gated::GatedHead;
use weir_kernels::kernels::{GatedOut, Kernels, PoolOut, Rule, WeightsOut};
use weir_kernels::linear::Linear;
use weir_kernels::normalise::{Link, Normalisation};
use weir_kernels::view::{Dtype, Element, Layout, Place};
use weir_kernels::{Bags, Cpu, View, ViewMut};

/// The calls that a call of (b) may make, the first with these bags apart: a memset, the pool, the weights, the settling; the
/// memset of masked rows' weights, and softmax's greatest.
const MOST: usize = 6;

fn stream() -> Stream {
    emulated::gpu().stream().unwrap()
}

/// A case whose arrays lie on the device.
struct There {
    logits: Buffer<f32>,
    features: Buffer<f32>,
    weights: Buffer<f32>,
    sums: Buffer<f32>,
    squares: Buffer<f32>,
    entropy: Buffer<f32>,
    flags: Buffer<u32>,
    pooled: Buffer<f32>,
    strides: [usize; 2],
    width: usize,
}

fn layout<T: Number + Element, const N: usize>(
    of: &Buffer<T>,
    shape: [usize; N],
    strides: [usize; N],
    dtype: Dtype,
) -> Layout<N> {
    Layout {
        address: of.span().address(),
        dtype,
        shape,
        strides,
        place: Place::Cuda(0),
    }
}

impl There {
    /// Results full of NaN, so that what is not written shows.
    fn new(gpu: &Gpu, case: &Case) -> There {
        let Stored::F32(features) = &case.features else {
            panic!("a case of f32");
        };
        let nan = |len: usize| gpu.keep(&vec![f32::NAN; len]).unwrap();
        There {
            logits: gpu.keep(&case.logits).unwrap(),
            features: gpu.keep(features).unwrap(),
            weights: nan(case.rows()),
            sums: nan(case.len()),
            squares: nan(case.len()),
            entropy: nan(case.len()),
            flags: gpu.keep(&vec![77u32; case.len()]).unwrap(),
            pooled: nan(case.len() * case.width),
            strides: [case.stride, 1],
            width: case.width,
        }
    }

    fn one(of: &Buffer<f32>) -> Layout<1> {
        layout(of, [of.len()], [1], Dtype::F32)
    }

    fn features(&self, bags: &Bags) -> Layout<2> {
        let shape = [bags.total(), self.width];
        layout(&self.features, shape, self.strides, Dtype::F32)
    }

    /// # Safety
    /// Nothing else uses the results until the stream is read.
    unsafe fn out(&self) -> PoolOut<'_> {
        let (n, width) = (self.sums.len(), self.width);
        let pooled = layout(&self.pooled, [n, width], [width, 1], Dtype::F32);
        let flags = layout(&self.flags, [n], [1], Dtype::U32);
        // SAFETY: the buffers are of these sizes and live on; the rest is the caller's promise.
        unsafe {
            PoolOut {
                pooled: ViewMut::foreign(pooled),
                weights: WeightsOut {
                    weights: ViewMut::foreign(There::one(&self.weights)),
                    sums: ViewMut::foreign(There::one(&self.sums)),
                    squares: ViewMut::foreign(There::one(&self.squares)),
                    entropy: ViewMut::foreign(There::one(&self.entropy)),
                    flags: ViewMut::foreign(flags),
                },
            }
        }
    }

    fn pool(&self, stream: &Stream, bags: &Bags, rule: Rule) {
        // SAFETY: the buffers are of these sizes, live until the stream is read, and nothing else uses them.
        unsafe {
            let logits = View::foreign(There::one(&self.logits));
            let features = View::foreign(self.features(bags));
            stream
                .pool(bags, rule, features, logits, self.out())
                .unwrap();
        }
    }

    /// (c), which writes the logits.
    fn gated_pool(&self, stream: &Stream, bags: &Bags, rule: Rule, head: &GatedHead) {
        // SAFETY: as above.
        unsafe {
            let out = GatedOut {
                logits: ViewMut::foreign(There::one(&self.logits)),
                pool: self.out(),
                tape: None,
            };
            let features = View::foreign(self.features(bags));
            stream.gated_pool(bags, rule, head, features, out).unwrap();
        }
    }

    fn results(&self, stream: &Stream) -> Results {
        Results {
            weights: self.weights.read(stream).unwrap(),
            sums: self.sums.read(stream).unwrap(),
            squares: self.squares.read(stream).unwrap(),
            entropy: self.entropy.read(stream).unwrap(),
            flags: self.flags.read(stream).unwrap(),
            pooled: self.pooled.read(stream).unwrap(),
        }
    }
}

fn rule(normalisation: Normalisation) -> Rule {
    Rule {
        normalisation,
        link: Link::None,
    }
}

/// Bags of which some must be passed again, and masked rows.
fn odd_case(seed: u64, masked: bool) -> Case {
    let odd = [Odd::Refused, Odd::RefusedZeros, Odd::Zeros, Odd::Nothing];
    Case::with(
        seed,
        &[0, 5, 530, 77, 300, 1, 129],
        40,
        Type::F32,
        masked,
        &odd,
    )
}

#[test]
#[ignore = "a case, run by the tests below"]
fn case_again() {
    if !emulated::inside() {
        return;
    }
    let (stream, cpu) = (stream(), Cpu::new(1).unwrap());
    for (name, normalisation, masked) in [
        ("plain", Normalisation::SquaredAverage, false),
        ("softmax", Normalisation::Softmax, true),
    ] {
        let rule = rule(normalisation);
        let case = odd_case(5, masked);
        let bags = case.bags();
        There::new(stream.gpu(), &case).pool(&stream, &bags, rule);
        let there = There::new(stream.gpu(), &case);
        let same = bags.clone();
        say(&format!("{name} begins"), "");
        there.pool(&stream, &same, rule);
        say(&format!("{name} ends"), "");
        assert_eq!(there.results(&stream), pooled(&cpu, &case, rule));
    }
}

#[test]
#[ignore = "a case, run by the tests below"]
fn case_new_bags() {
    if !emulated::inside() {
        return;
    }
    let (stream, cpu) = (stream(), Cpu::new(1).unwrap());
    let rule = rule(Normalisation::SquaredAverage);
    let cases: Vec<Case> = (0..12).map(|seed| odd_case(seed, seed % 2 == 0)).collect();
    let there: Vec<There> = cases
        .iter()
        .map(|case| There::new(stream.gpu(), case))
        .collect();
    // Each batch's bags are gone before the device has looked at them, where streams are lazy. The first round loads kernels.
    for round in 0..2 {
        if round == 1 {
            say("warm", "");
        }
        for (case, there) in cases.iter().zip(&there) {
            there.pool(&stream, &case.bags(), rule);
        }
    }
    say("done", "");
    // More bags alive than a stream keeps lists of.
    let alive: Vec<Bags> = cases.iter().map(Case::bags).collect();
    for _ in 0..2 {
        for (there, bags) in there.iter().zip(&alive) {
            there.pool(&stream, bags, rule);
        }
    }
    for (case, there) in cases.iter().zip(&there) {
        assert_eq!(there.results(&stream), pooled(&cpu, case, rule));
    }
}

/// More bags than settling has blocks, so that a block has several that are passed again.
#[test]
#[ignore = "a case, run by the test below"]
fn case_many_bags() {
    if !emulated::inside() {
        return;
    }
    let (stream, cpu) = (stream(), Cpu::new(1).unwrap());
    let sizes: Vec<usize> = (0..700).map(|bag| [3, 0, 1, 9][bag % 4]).collect();
    let odd = [Odd::Refused, Odd::RefusedZeros, Odd::Zeros];
    for normalisation in [Normalisation::SquaredAverage, Normalisation::Softmax] {
        let case = Case::with(3, &sizes, 5, Type::F32, true, &odd);
        let rule = rule(normalisation);
        assert_eq!(pooled(&stream, &case, rule), pooled(&cpu, &case, rule));
    }
}

#[test]
fn any_number_of_bags_is_settled() {
    run(PLAIN, &Setting::default(), "case_many_bags").passed();
}

fn traced(lazy: bool) -> Setting {
    Setting {
        lazy,
        environment: vec![("WEIR_EMU_TRACE", "1".to_string())],
        ..Setting::default()
    }
}

/// Neither memory nor a wait among them.
fn lean(outcome: &Outcome, from: &str, to: &str) -> usize {
    let calls = outcome.calls(from, to);
    println!("{from} to {to}: {calls:?}");
    let stays = |call: &&&str| !call.starts_with("Launch") && !call.starts_with("Mem");
    assert_eq!(calls.iter().find(stays), None, "{calls:?}");
    for call in ["MemAlloc", "MemFree", "MemHostAlloc", "MemcpyDtoH"] {
        assert!(!calls.iter().any(|one| one.starts_with(call)), "{calls:?}");
    }
    calls.len()
}

#[test]
fn a_pool_on_the_device_is_at_most_six_calls_of_the_driver_whatever_is_passed_again() {
    let outcome = run(PLAIN, &traced(false), "case_again").passed();
    assert_eq!(lean(&outcome, "plain begins", "plain ends"), 4);
    assert_eq!(lean(&outcome, "softmax begins", "softmax ends"), MOST);
}

#[test]
fn new_bags_each_batch_cost_one_copy_and_neither_memory_nor_a_wait() {
    for lazy in [false, true] {
        let outcome = run(PLAIN, &traced(lazy), "case_new_bags").passed();
        // Of twelve batches every other one has a mask.
        assert_eq!(lean(&outcome, "warm", "done"), 12 * 5 + 6);
    }
}

/// Bags of several items, of one, and empty ones.
#[test]
#[ignore = "a case, run by the test below"]
fn case_gated() {
    if !emulated::inside() {
        return;
    }
    let stream = stream();
    let rule = rule(Normalisation::SquaredAverage);
    let layer = || Linear::new(&[0.25; 3 * 8], &[0.1; 3]);
    let head = AttentionHead::new(layer(), Some(layer()), vec![1.0; 3], 0.5);
    let head = GatedHead::new(head);
    for (name, masked) in [("plain", false), ("masked", true)] {
        let case = Case::with(
            5,
            &[0, 5, 300, 0, 129],
            8,
            Type::F32,
            masked,
            &[Odd::Nothing],
        );
        let bags = case.bags();
        There::new(stream.gpu(), &case).gated_pool(&stream, &bags, rule, &head);
        let there = There::new(stream.gpu(), &case);
        say(&format!("{name} begins"), "");
        there.gated_pool(&stream, &bags, rule, &head);
        say(&format!("{name} ends"), "");
        let results = there.results(&stream);
        assert!(results.weights.iter().all(|w| w.is_finite()));
        assert!(results.entropy.iter().all(|entropy| entropy.is_finite()));
    }
}

#[test]
fn head_weights_and_pool_on_the_device_are_one_launch_and_a_memset_and_two_more_where_rows_are_masked()
 {
    let outcome = run(PLAIN, &traced(false), "case_gated").passed();
    for (from, to, memsets) in [
        ("plain begins", "plain ends", 1),
        ("masked begins", "masked ends", 3),
    ] {
        assert_eq!(lean(&outcome, from, to), 1 + memsets);
        let calls = outcome.calls(from, to);
        let launches = calls.iter().filter(|call| call.starts_with("Launch"));
        assert_eq!(launches.count(), 1, "{calls:?}");
    }
}
