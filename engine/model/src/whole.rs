//! Bags of whole slides: the features of a slide in one matrix, pooled by weir-kernels' one-pass kernels.
//!
//! The portable head's bags have the same bits as [`BagModel::pool`]'s, whatever ran them, alone or with others.

use crate::bag::{BagModel, Pooled};
use weir_kernels::kernels::{GatedOut, PoolOut, WeightsOut, flags};
use weir_kernels::normalise::Normalisation;
use weir_kernels::pool::{self, Flags, admissible};
use weir_kernels::view::{View, ViewMut};
use weir_kernels::{Auto, Bags, KernelError, Kernels, Rule};

/// Features from which a bag is launched by itself and lies where it lies, bytes. A launch of its own costs a bag 20 to 40 us on the
/// processor (measured on two cores; a device's, a memset, three launches and a wait, are reckoned to be some 100 us), copying it to
/// lie beside others 35 us here.
const ALONE: usize = 512 << 10;

/// Features of the smaller bags that are copied side by side for one launch, bytes at most. By then a launch costs little beside
/// what it carries: on a device 100 us beside the 800 us that 8 MiB take through pinned memory. More would save less than it costs:
/// copying 8 MiB takes 0.4 to 0.9 ms, 32 MiB 4 to 5 ms, and 64 MiB 60 to 90 ms, because the allocator gives memory of that size back
/// to the system, which clears it again each time (measured on two busy cores).
const GATHERED: usize = 8 << 20;

/// What the kernels are given to write.
struct Results {
    logits: Vec<f32>,
    pooled: Vec<f32>,
    weights: Vec<f32>,
    sums: Vec<f32>,
    squares: Vec<f32>,
    entropy: Vec<f32>,
    flags: Vec<u32>,
}

impl BagModel {
    /// Whether the kernels know the model's normalisation.
    fn by_kernels(&self) -> bool {
        !matches!(self.kind, Normalisation::Sparsemax | Normalisation::Max)
    }

    /// Pools bags, each a matrix of rows in TileId order, one behind the other without gaps. Bags with at least `whole`
    /// rows, and all of a fused head's, are pooled by the kernels; the others member by member. An error is that of a launch, and
    /// so of the bags in it alone.
    ///
    /// # Panics
    /// When a matrix is no whole number of rows of the model's width: the planner has matched the two.
    pub fn pool_matrices(
        &self,
        kernels: &Auto,
        whole: usize,
        bags: &[&[f32]],
    ) -> Vec<Result<Pooled, KernelError>> {
        let width = self.head.inputs();
        let mut pooled: Vec<Option<Result<Pooled, KernelError>>> =
            bags.iter().map(|_| None).collect();
        let (mut gathered, mut bytes): (Vec<usize>, usize) = (Vec::new(), 0);
        for (place, matrix) in bags.iter().enumerate() {
            assert_eq!(
                matrix.len() % width,
                0,
                "a bag's features do not have the width of the model"
            );
            let by_kernels =
                self.fused.is_some() || (self.by_kernels() && matrix.len() / width >= whole);
            let size = size_of_val(*matrix);
            if !by_kernels {
                let members: Vec<&[f32]> = matrix.chunks_exact(width).collect();
                pooled[place] = Some(Ok(self.pool(&members)));
            } else if size >= ALONE {
                self.launch_several(kernels, &[place], bags, &mut pooled);
            } else {
                if bytes + size > GATHERED {
                    self.launch_several(kernels, &gathered, bags, &mut pooled);
                    (gathered, bytes) = (Vec::new(), 0);
                }
                gathered.push(place);
                bytes += size;
            }
        }
        self.launch_several(kernels, &gathered, bags, &mut pooled);
        pooled.into_iter().flatten().collect()
    }

    fn launch_several(
        &self,
        kernels: &Auto,
        places: &[usize],
        bags: &[&[f32]],
        pooled: &mut [Option<Result<Pooled, KernelError>>],
    ) {
        if places.is_empty() {
            return;
        }
        let these: Vec<&[f32]> = places.iter().map(|place| bags[*place]).collect();
        match self.launch(kernels, &these) {
            Ok(made) => places
                .iter()
                .zip(made)
                .for_each(|(place, bag)| pooled[*place] = Some(Ok(bag))),
            Err(error) => places
                .iter()
                .for_each(|place| pooled[*place] = Some(Err(error.clone()))),
        }
    }

    /// One launch for some bags.
    fn launch(&self, kernels: &Auto, bags: &[&[f32]]) -> Result<Vec<Pooled>, KernelError> {
        let width = self.head.inputs();
        let mut offsets = vec![0];
        offsets.extend(bags.iter().scan(0, |rows, matrix| {
            *rows += matrix.len() / width;
            Some(*rows)
        }));
        let rows = offsets.last().copied().unwrap_or(0);
        let gathered: Vec<f32>;
        let matrix: &[f32] = match bags {
            [one] => one,
            several => {
                gathered = several.concat();
                &gathered
            }
        };
        let launch = Bags::new(&offsets, None)?;
        let mut results = Results {
            logits: vec![0.0; rows],
            pooled: vec![0.0; bags.len() * width],
            weights: vec![0.0; rows],
            sums: vec![0.0; bags.len()],
            squares: vec![0.0; bags.len()],
            entropy: vec![0.0; bags.len()],
            flags: vec![0; bags.len()],
        };
        self.run(kernels, &launch, matrix, &mut results)?;
        Ok((0..bags.len())
            .map(|bag| {
                let members: Vec<&[f32]> = bags[bag].chunks_exact(width).collect();
                self.of_bag(&results, bag, offsets[bag]..offsets[bag + 1], &members)
            })
            .collect())
    }

    fn run(
        &self,
        kernels: &Auto,
        bags: &Bags,
        matrix: &[f32],
        to: &mut Results,
    ) -> Result<(), KernelError> {
        let (rows, width, count) = (bags.total(), self.head.inputs(), bags.len());
        let rule = Rule {
            normalisation: self.kind,
            link: self.link,
        };
        let features = View::new(matrix, [rows, width])?;
        if self.fused.is_none() {
            let members: Vec<&[f32]> = matrix.chunks_exact(width).collect();
            to.logits = kernels.processor().logits(&self.head, &members);
        }
        let out = PoolOut {
            pooled: ViewMut::new(&mut to.pooled, [count, width])?,
            weights: WeightsOut {
                weights: ViewMut::new(&mut to.weights, [rows])?,
                sums: ViewMut::new(&mut to.sums, [count])?,
                squares: ViewMut::new(&mut to.squares, [count])?,
                entropy: ViewMut::new(&mut to.entropy, [count])?,
                flags: ViewMut::new(&mut to.flags, [count])?,
            },
        };
        match &self.fused {
            None => kernels.pool(bags, rule, features, View::new(&to.logits, [rows])?, out),
            Some(head) => {
                let out = GatedOut {
                    logits: ViewMut::new(&mut to.logits, [rows])?,
                    pool: out,
                    tape: None,
                };
                kernels.gated_pool(bags, rule, head, features, out)
            }
        }
    }

    /// A bag of a launch, as the loops give it.
    fn of_bag(
        &self,
        results: &Results,
        bag: usize,
        rows: std::ops::Range<usize>,
        members: &[&[f32]],
    ) -> Pooled {
        let width = self.head.inputs();
        let said = |flag: u32| results.flags[bag] & flag != 0;
        let logits = results.logits[rows.clone()].to_vec();
        let refused: Vec<usize> = if said(flags::REFUSED) {
            (0..members.len())
                .filter(|&place| !admissible(logits[place], members[place]))
                .collect()
        } else {
            Vec::new()
        };
        let empty = said(flags::EMPTY);
        let kept = members.len() - refused.len();
        let pooled = pool::Pooled {
            pooled: if empty {
                Vec::new()
            } else {
                results.pooled[bag * width..(bag + 1) * width].to_vec()
            },
            weights: results.weights[rows].to_vec(),
            numerators: Vec::new(),
            effective: if empty {
                0.0
            } else {
                (1.0 / results.squares[bag]).clamp(1.0, kept.max(1) as f32)
            },
            entropy: results.entropy[bag].max(0.0),
            refused,
            flags: Flags {
                empty,
                uniform: said(flags::UNIFORM),
                out_of_domain: said(flags::OUT_OF_DOMAIN),
            },
        };
        self.finish(logits, pooled, members)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::folder::{parameters, save};
    use crate::{Pooling, Weights};
    use weir_kernels::Cpu;
    use weir_pipeline::model::{ModelHeader, ModelInput, ModelKind};

    const WIDTH: usize = 7;

    fn model(normalise: &str, link: &str, accumulate: Option<&str>) -> BagModel {
        let folder = tempfile::tempdir().unwrap();
        let header = ModelHeader {
            format: 1,
            kind: ModelKind::Bag,
            arch: "small".into(),
            feature: WIDTH as u32,
            hidden: 5,
            gated: true,
            classes: vec!["no".into(), "yes".into()],
            positive: "yes".into(),
            input: ModelInput {
                size: 16,
                mpp: 1.0,
                mean: [0.5; 3],
                std: [0.5; 3],
            },
            normalise: normalise.into(),
            link: link.into(),
            power: Some(1.7),
            contract: "ordered-f32/1".into(),
            sha256: String::new(),
            training: None,
            folder: Default::default(),
        };
        let weights = Weights::start(&parameters(&header).unwrap(), 3);
        let header = save(folder.path(), &header, &weights).unwrap();
        let pooling = Pooling {
            accumulate: accumulate.map(str::to_owned),
            ..Pooling::default()
        };
        BagModel::load(&header, &pooling).unwrap()
    }

    fn matrix(rows: usize, seed: u64, holed: bool) -> Vec<f32> {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut matrix: Vec<f32> = (0..rows * WIDTH)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state >> 40) as f32 / (1 << 23) as f32 - 1.0
            })
            .collect();
        if holed && rows > 2 {
            matrix[WIDTH + 2] = f32::NAN;
            matrix[rows * WIDTH - 1] = 1e19;
        }
        matrix
    }

    /// Debug shows each bit of an f32: two that differ have different texts.
    fn text(pooled: &Pooled) -> String {
        format!("{pooled:?}")
    }

    fn all(pooled: Vec<Result<Pooled, KernelError>>) -> Vec<Pooled> {
        pooled.into_iter().collect::<Result<_, _>>().unwrap()
    }

    #[test]
    fn loops_kernels_and_batches_of_bags_have_the_same_bits() {
        let sizes = [0, 1, 2, 5, 127, 128, 129, 300, 1025];
        for (normalise, link, accumulate) in [
            ("squared-average", "none", None),
            ("squared-average", "sigmoid", None),
            ("squared-average", "sigmoid", Some("exact")),
            ("softmax", "none", None),
            ("sigmoid", "none", None),
            ("mean", "none", None),
            ("power", "sigmoid", None),
            ("max", "none", None),
            ("sparsemax", "none", None),
        ] {
            let model = model(normalise, link, accumulate);
            for holed in [false, true] {
                let bags: Vec<Vec<f32>> = sizes
                    .iter()
                    .map(|rows| matrix(*rows, *rows as u64 + 1, holed))
                    .collect();
                let views: Vec<&[f32]> = bags.iter().map(Vec::as_slice).collect();
                for threads in [1, 3] {
                    let kernels = Auto::cpu(Cpu::new(threads).unwrap());
                    let batch = all(model.pool_matrices(&kernels, 1, &views));
                    for (matrix, together) in views.iter().zip(&batch) {
                        let members: Vec<&[f32]> = matrix.chunks_exact(WIDTH).collect();
                        let truth = text(&model.pool(&members));
                        let alone = all(model.pool_matrices(&kernels, 1, &[matrix]));
                        let about = format!("{normalise} {link} {} {holed}", members.len());
                        assert_eq!(text(together), truth, "{about}, together");
                        assert_eq!(text(&alone[0]), truth, "{about}, alone");
                    }
                }
            }
        }
    }

    #[test]
    fn bags_keep_their_places_whether_they_are_launched_alone_or_with_others() {
        let model = model("squared-average", "sigmoid", None);
        let kernels = Auto::cpu(Cpu::new(2).unwrap());
        let alone = ALONE / (WIDTH * 4) + 10;
        // Small ones that fill more than one gathering, with large ones between them.
        let small = alone - 20;
        let count = GATHERED / (small * WIDTH * 4) + 3;
        let mut sizes = vec![10, alone, alone * 3];
        sizes.extend(std::iter::repeat_n(small, count));
        sizes.extend([alone * 2, 20]);
        let bags: Vec<Vec<f32>> = (1..)
            .zip(&sizes)
            .map(|(seed, rows)| matrix(*rows, seed, false))
            .collect();
        let views: Vec<&[f32]> = bags.iter().map(Vec::as_slice).collect();
        let pooled = all(model.pool_matrices(&kernels, 1, &views));
        assert_eq!(pooled.len(), sizes.len());
        for (matrix, pooled) in views.iter().zip(&pooled) {
            let members: Vec<&[f32]> = matrix.chunks_exact(WIDTH).collect();
            assert_eq!(text(pooled), text(&model.pool(&members)));
        }
    }
}
