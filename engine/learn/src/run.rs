//! `weir train`: recipe and data in, a run's folder out.

use crate::bag::{BagPasses, selection, start, take_encoder};
use crate::checkpoint::{Checkpoints, Epoch, Ground};
use crate::data::Data;
use crate::nets::ScorerNet;
use crate::phase::{Outcome, Phase};
use crate::pooling::Numerator;
use crate::progress::Progress;
use crate::recipe::Recipe;
use crate::scorer::ScorerPasses;
use crate::scoring::Scoring;
use crate::{TrainError, chart, evaluate, record};
use burn::tensor::Device;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use weir_kernels::auto::Kernel;
use weir_kernels::{Auto, Kernels};
use weir_model::{Choice, Weights, file, head, kernels};
use weir_slide::Openers;

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Options {
    /// What to train and how.
    pub recipe: PathBuf,
    /// Folder with `manifest.csv`, the slides, `bags.csv` and, for evaluation, `truth/`.
    pub data: PathBuf,
    /// Folder of the run: metrics, curves, checkpoints, models.
    pub out: PathBuf,
    /// Go on from the checkpoints in `out`.
    pub resume: bool,
    /// What scores tiles between epochs. Networks are trained by burn, on the processor.
    pub choice: Choice,
    /// Whose kernels pool a bag and give the pool's gradient; the same bits on each, so a training may go on elsewhere.
    pub device: weir_model::Device,
    /// Readers of the plugins that the recipe names ([`RecipeFile::plugin`](crate::recipe::RecipeFile::plugin)).
    pub openers: Openers,
    /// Name and SHA-256 of each of those plugins: other readers may give other pixels, so a run goes on only with the same ones.
    pub plugins: Vec<(String, String)>,
}

/// How a run ended.
#[derive(Clone, Debug)]
pub enum Ended<T> {
    /// All of it.
    Whole(T),
    /// [`Progress::go_on`] said no; `resume` goes on.
    Early,
}

/// What a whole run left.
#[derive(Clone, Debug)]
pub struct Trained {
    /// Folder of A: model.toml, weights.safetensors, training record.
    pub scorer: PathBuf,
    /// Folder of B.
    pub bag: PathBuf,
    /// The record as text.
    pub record: String,
}

/// Trains both models, evaluates them, and writes everything into the run's folder.
pub fn train(options: &Options, progress: &mut dyn Progress) -> Result<Ended<Trained>, TrainError> {
    let recipe = Recipe::load(&options.recipe)?;
    let out = &options.out;
    let scorer_checkpoints = Checkpoints::new(out, "scorer");
    if !options.resume && scorer_checkpoints.any() {
        return Err(TrainError::Run {
            path: out.clone(),
            what: "holds the checkpoints of an earlier run".into(),
            help: "go on with --resume, or name another folder".into(),
        });
    }
    // Before the data, which take longer to read than a missing device to be found missing.
    let kernels = kernels::open(options.device, 0, false).map_err(TrainError::Device)?;
    let kernels = Arc::new(kernels.kernels);
    let data = Data::load(&options.data, &recipe, &options.openers)?;
    let device = Device::flex().autodiff();
    write(&out.join("recipe.toml"), recipe.text.as_bytes())?;
    write(
        &out.join("bags.csv"),
        data.bags_csv(recipe.classes()).as_bytes(),
    )?;
    progress.note(&data.summary(&recipe));
    if options.device != weir_model::Device::Cpu {
        let from = kernels
            .threshold(Kernel::Pool)
            .map_err(TrainError::Kernel)?;
        let device = kernels.device();
        let pool = match from {
            Some(from) => format!("bags of {from} B and more are pooled on {device}"),
            None => format!("bags are pooled on the processor: {device} is never faster"),
        };
        progress.note(&pool);
    }

    let beginning = scorer_start(&recipe)?;
    let executor = Scoring::new(&recipe, &beginning, &options.choice)?.key();
    let ground = Ground::new(&recipe, &data.sha256, &executor, &options.plugins);
    let run = Run {
        recipe: &recipe,
        data: &data,
        options,
        ground: &ground,
        device: &device,
        kernels: &kernels,
    };

    let Ended::Whole(scorer) = run.scorer(&beginning, progress)? else {
        return Ok(Ended::Early);
    };
    let scoring = Scoring::new(&recipe, &scorer.best, &options.choice)?;
    let chosen = selection(&recipe, &data, &scoring)?;
    let mut history: Vec<Epoch> = scorer.history.clone();
    let mut poolings = Vec::new();
    let names = std::iter::once(&recipe.file.bag.normalise).chain(&recipe.file.bag.compare);
    for normalise in names {
        let Ended::Whole((numerator, outcome)) =
            run.bag(normalise.get_ref(), &scorer.best, &chosen, progress)?
        else {
            return Ok(Ended::Early);
        };
        history.extend(outcome.history);
        poolings.push((normalise.get_ref().clone(), numerator, outcome.best));
    }
    progress.note("evaluating");
    let evaluation = evaluate::evaluate(&run.evaluation(&chosen), &scoring, &poolings)?;
    if let Some(refused) = kernels.refused(Kernel::Pool) {
        progress.note(&format!(
            "{} had no room for {} calls of the pool, and the processor did them, with the same results; the first was {}",
            kernels.device(),
            refused.calls,
            refused.first
        ));
    }

    write(
        &out.join("metrics.csv"),
        record::metrics_csv(&history).as_bytes(),
    )?;
    chart::curves(&history, &out.join("curves.png"))?;
    let facts = record::Facts::new(&recipe, &data, &ground, &history, evaluation);
    let a = out.join("a");
    record::write_scorer(&a, &recipe, &scorer.best, &facts)?;
    let b = out.join("b");
    if let Some((normalise, _, weights)) = poolings.first() {
        record::write_bag(&b, &recipe, normalise, weights, &facts)?;
    }
    let text = facts.text();
    write(&out.join("training.md"), text.as_bytes())?;
    write(&out.join("training.json"), facts.json()?.as_bytes())?;
    Ok(Ended::Whole(Trained {
        scorer: a,
        bag: b,
        record: text,
    }))
}

/// Writes a file of the run, whole or not at all.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<(), TrainError> {
    file::write(path, bytes).map_err(|source| TrainError::io(path, "write it", source))
}

/// What A holds before training.
fn scorer_start(recipe: &Recipe) -> Result<Weights, TrainError> {
    let parameters = head::scorer_parameters(&recipe.network, recipe.classes().len());
    let mut weights = Weights::start(&parameters, recipe.file.seed);
    if let Some(init) = &recipe.file.scorer.init {
        let from = Weights::load(&recipe.beside(init))?;
        take_encoder(recipe, &from, &mut weights)?;
    }
    Ok(weights)
}

struct Run<'a> {
    recipe: &'a Recipe,
    data: &'a Data,
    options: &'a Options,
    ground: &'a Ground,
    device: &'a Device,
    kernels: &'a Arc<Auto>,
}

impl<'a> Run<'a> {
    fn scorer(
        &self,
        beginning: &Weights,
        progress: &mut dyn Progress,
    ) -> Result<Ended<Outcome>, TrainError> {
        let classes = self.recipe.classes().len();
        let net = ScorerNet::new(&self.recipe.network, classes, beginning, self.device)?;
        let mut passes = ScorerPasses {
            recipe: self.recipe,
            data: self.data,
            choice: &self.options.choice,
            device: self.device,
        };
        let recipe = &self.recipe.file.scorer;
        let phase = Phase {
            name: "scorer",
            epochs: *recipe.epochs.get_ref(),
            steps: recipe.steps,
            out: &self.options.out,
            resume: self.options.resume,
            ground: self.ground,
        };
        phase.run(net, &mut passes, progress)
    }

    fn bag(
        &self,
        normalise: &str,
        scorer: &Weights,
        chosen: &[Vec<usize>],
        progress: &mut dyn Progress,
    ) -> Result<Ended<(Numerator, Outcome)>, TrainError> {
        let recipe = &self.recipe.file.bag;
        // `parse` refuses what cannot be trained.
        let numerator = Numerator::new(normalise, recipe.link.get_ref(), recipe.power)
            .unwrap_or(Numerator::One);
        let mut passes = BagPasses {
            recipe: self.recipe,
            data: self.data,
            selection: chosen,
            numerator,
            pool: numerator.passes(self.kernels),
            device: self.device,
        };
        let net = passes.net(&start(self.recipe, scorer)?, self.device)?;
        let name = format!("bag-{normalise}");
        let phase = Phase {
            name: &name,
            epochs: *recipe.epochs.get_ref(),
            steps: recipe.steps,
            out: &self.options.out,
            resume: self.options.resume,
            ground: self.ground,
        };
        Ok(match phase.run(net, &mut passes, progress)? {
            Ended::Whole(outcome) => Ended::Whole((numerator, outcome)),
            Ended::Early => Ended::Early,
        })
    }

    fn evaluation(&self, chosen: &'a [Vec<usize>]) -> evaluate::Ground<'a> {
        evaluate::Ground {
            recipe: self.recipe,
            data: self.data,
            selection: chosen,
            device: self.device,
            kernels: self.kernels,
        }
    }
}
