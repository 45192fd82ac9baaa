//! time
use weir_kernels::attention::AttentionHead;
use weir_kernels::gated::*;
use weir_kernels::kernels::*;
use weir_kernels::linear::Linear;
use weir_kernels::normalise::*;
use weir_kernels::*;
struct Cpu0(f64);
impl Cpu0 {
    fn read() -> f64 {
        std::fs::read_dir("/proc/self/task")
            .unwrap()
            .map(|t| {
                std::fs::read_to_string(t.unwrap().path().join("schedstat")).map_or(0.0, |s| {
                    s.split(' ').next().unwrap().parse::<f64>().unwrap() * 1e-9
                })
            })
            .sum()
    }
    fn now() -> Cpu0 {
        Cpu0(Cpu0::read())
    }
    fn elapsed(&self) -> f64 {
        Cpu0::read() - self.0
    }
}
fn main() {
    let (n, d, l) = (20000usize, 1024usize, 256usize);
    let mut s = 1u64;
    let mut r = |scale: f32| {
        s = s
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        ((s >> 40) as f32 / 8388608.0 - 1.0) * 1.7 * scale
    };
    let h: Vec<f32> = (0..n * d).map(|_| r(1.0)).collect();
    let v: Vec<f32> = (0..l * d).map(|_| r(1.0 / 32.0)).collect();
    let u: Vec<f32> = (0..l * d).map(|_| r(1.0 / 32.0)).collect();
    let b: Vec<f32> = (0..l).map(|_| r(0.1)).collect();
    let w: Vec<f32> = (0..l).map(|_| r(1.0 / 16.0)).collect();
    let dz: Vec<f32> = (0..d).map(|_| r(1.0)).collect();
    let head = GatedHead::new(AttentionHead::new(
        Linear::new(&v, &b),
        Some(Linear::new(&u, &b)),
        w,
        0.5,
    ));
    let bags = Bags::one(n).unwrap();
    let rule = Rule {
        normalisation: Normalisation::SquaredAverage,
        link: Link::None,
    };
    let (mut a, mut z, mut wt, mut su, mut sq, mut en, mut fl) = (
        vec![0f32; n],
        vec![0f32; d],
        vec![0f32; n],
        vec![0f32; 1],
        vec![0f32; 1],
        vec![0f32; 1],
        vec![0u32; 1],
    );
    let (mut gv, mut gvb, mut gu, mut gub, mut gw, mut gb, mut gh) = (
        vec![0f32; l * d],
        vec![0f32; l],
        vec![0f32; l * d],
        vec![0f32; l],
        vec![0f32; l],
        vec![0f32; 1],
        vec![0f32; n * d],
    );
    let runs: usize = std::env::args().nth(1).map_or(7, |x| x.parse().unwrap());
    let mut tape = GatedTape::new();
    for threads in [1, 2] {
        let cpu = Cpu::new(threads).unwrap();
        let mut best = [f64::INFINITY; 6];
        for _ in 0..runs {
            for keep in [false, true] {
                let t = Cpu0::now();
                cpu.gated_pool(
                    &bags,
                    rule,
                    &head,
                    View::new(&h, [n, d]).unwrap(),
                    GatedOut {
                        logits: ViewMut::new(&mut a, [n]).unwrap(),
                        pool: PoolOut {
                            pooled: ViewMut::new(&mut z, [1, d]).unwrap(),
                            weights: WeightsOut {
                                weights: ViewMut::new(&mut wt, [n]).unwrap(),
                                sums: ViewMut::new(&mut su, [1]).unwrap(),
                                squares: ViewMut::new(&mut sq, [1]).unwrap(),
                                entropy: ViewMut::new(&mut en, [1]).unwrap(),
                                flags: ViewMut::new(&mut fl, [1]).unwrap(),
                            },
                        },
                        tape: keep.then_some(&mut tape),
                    },
                )
                .unwrap();
                let i = usize::from(keep);
                best[i] = best[i].min(t.elapsed());
                for dh in [false, true] {
                    let t = Cpu0::now();
                    cpu.gated_pool_backward(
                        &bags,
                        rule,
                        &head,
                        View::new(&h, [n, d]).unwrap(),
                        GatedState {
                            logits: View::new(&a, [n]).unwrap(),
                            pool: PoolState {
                                pooled: View::new(&z, [1, d]).unwrap(),
                                weights: View::new(&wt, [n]).unwrap(),
                                sums: View::new(&su, [1]).unwrap(),
                                flags: View::new(&fl, [1]).unwrap(),
                            },
                            tape: keep.then_some(&tape),
                        },
                        PoolGradient {
                            pooled: View::new(&dz, [1, d]).unwrap(),
                            weights: None,
                        },
                        GatedBackward {
                            value: ViewMut::new(&mut gv, [l, d]).unwrap(),
                            value_bias: ViewMut::new(&mut gvb, [l]).unwrap(),
                            gate: Some((
                                ViewMut::new(&mut gu, [l, d]).unwrap(),
                                ViewMut::new(&mut gub, [l]).unwrap(),
                            )),
                            weight: ViewMut::new(&mut gw, [l]).unwrap(),
                            bias: ViewMut::new(&mut gb, [1]).unwrap(),
                            features: dh.then(|| ViewMut::new(&mut gh, [n, d]).unwrap()),
                        },
                    )
                    .unwrap();
                    let i = 2 + 2 * usize::from(keep) + usize::from(dh);
                    best[i] = best[i].min(t.elapsed());
                }
            }
        }
        let ms: Vec<_> = best.iter().map(|t| format!("{:.1}", t * 1e3)).collect();
        println!(
            "{threads} threads: forward {}, taping {}, backward again {} dh {}, taped {} dh {}",
            ms[0], ms[1], ms[2], ms[3], ms[4], ms[5]
        );
    }
}
