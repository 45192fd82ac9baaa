//! `weir graph`: the graph as a picture, its memory, and a dry run over the slides.

use crate::args::{self, Drawing};
use crate::message::{Done, Manner, Refusal};
use crate::pipeline::{self, Loaded};
use crate::plugin;
use crate::shown;
use serde_json::{Value, json};
use std::io::Write;
use weir_pipeline::{Node, Plan, Rows, memory};
use weir_plugin_host::Catalogue;
use weir_record::{Budget, Failure, Slab, SlideInfo};
use weir_runtime::stage::{Prepare, Prepared, Shared};
use weir_runtime::{Stop, exit};
use weir_stages::done::Again;

/// Prints a graph; with `--slides`, what a run would read.
pub fn graph(arguments: &args::Graph, manner: &Manner, out: &mut dyn Write) -> Done {
    let overrides = pipeline::overrides(&arguments.file)?;
    let catalogue = plugin::catalogue(false)?;
    let loaded = pipeline::load_with(&arguments.file.file, &overrides, &catalogue, manner)?;
    let dry = arguments
        .slides
        .then(|| dry_run(&loaded, &catalogue, manner))
        .transpose()?;
    let plan = loaded.plan;
    let (beyond, (fixed, slope)) = (Beyond::of(&plan), kept(&plan));
    match arguments.drawing {
        Drawing::Text => {
            out.write_all(weir_pipeline::graph::text(&plan).as_bytes())?;
            writeln!(out)?;
            writeln!(out, "memory")?;
            writeln!(
                out,
                "  budget        {}: pixels and features on their way, decoded native tiles, and what stages keep of open slides",
                shown::bytes(plan.run.memory)
            )?;
            writeln!(
                out,
                "{}  of a slide    {} + {} a tile kept while it is open; at most {}",
                of_plugins(&plan),
                shown::bytes(fixed),
                shown::bytes(slope),
                shown::counted(plan.run.open_slides as u64, "open slide")
            )?;
            writeln!(out, "  beyond it     {}", beyond.formula())?;
            let kernels = kernels(&plan);
            if !kernels.is_empty() {
                writeln!(out)?;
                writeln!(out, "kernels")?;
            }
            for (stage, what) in kernels {
                writeln!(out, "  {stage:<13} {what}")?;
            }
            if let Some(dry) = &dry {
                writeln!(out)?;
                tell(&plan, dry, out)?;
            }
        }
        Drawing::Dot => out.write_all(weir_pipeline::graph::dot(&plan).as_bytes())?,
        Drawing::Mermaid => out.write_all(weir_pipeline::graph::mermaid(&plan).as_bytes())?,
        Drawing::Json => {
            let mut graph = weir_pipeline::graph::json(&plan);
            graph["memory"] = json!({
                "budget_bytes": plan.run.memory,
                "plugin_bytes": plan.of_plugins(),
                "slide_bytes": fixed,
                "slide_bytes_a_tile": slope,
                "beyond_bytes": beyond.bytes(),
                "beyond": beyond.formula(),
            });
            graph["kernels"] = kernels(&plan)
                .into_iter()
                .map(|(stage, what)| (stage.to_owned(), Value::from(what)))
                .collect::<serde_json::Map<_, _>>()
                .into();
            if let Some(dry) = &dry {
                graph["slides"] = dry.iter().map(|slide| json_of(&plan, slide)).collect();
            }
            writeln!(out, "{graph:#}")?;
        }
    }
    let mut failed = false;
    for slide in dry.iter().flatten() {
        if let Err(failure) = &slide.found {
            failed = true;
            manner.error(
                &format!(
                    "{}: slide {}: {}",
                    failure.stage, failure.slide, failure.what
                ),
                &failure.help,
            );
        }
    }
    Ok(if failed { exit::PARTLY } else { exit::DONE })
}

/// A line for each plugin whose readers keep something of all slides, and for each stage of one that says what it allocates.
fn of_plugins(plan: &Plan) -> String {
    let kept = plan.plugins.iter().filter(|plugin| plugin.cache > 0);
    let caches = kept.map(|plugin| {
        let bytes = shown::bytes(plugin.cache);
        format!(
            "  of plugins    {bytes} of it for what plugin `{}` keeps of all slides\n",
            plugin.name
        )
    });
    let stages = plan.stage_memories().map(|memory| {
        let (bytes, each) = (shown::bytes(memory.bytes()), shown::bytes(memory.each));
        let of = match memory.instances {
            1 => String::new(),
            instances => format!(": {instances} instances x {each}"),
        };
        let name = &memory.node.name;
        format!("  of plugins    {bytes} of it for what stage `{name}` allocates{of}\n")
    });
    caches.chain(stages).collect()
}

/// By which kernels each pool runs: what the plan says, whatever machine runs it.
fn kernels(plan: &Plan) -> Vec<(&str, String)> {
    let pools = plan
        .nodes
        .iter()
        .filter(|node| node.schema.name == weir_stages::attention_pool::SCHEMA.name);
    pools
        .map(|node| {
            let what = match (
                node.values.text("head"),
                node.values.integer("whole-slide-from"),
            ) {
                (Ok("fused"), _) => format!(
                    "fused head, contract {}: attention and pool as one kernel",
                    weir_kernels::gated::CONTRACT
                ),
                (_, Ok(from)) => format!(
                    "portable head, contract {}: bags of {from} tiles and more from one matrix, on a device where one is named and was measured to be faster",
                    weir_kernels::CONTRACT
                ),
                _ => format!("portable head, contract {}", weir_kernels::CONTRACT),
            };
            (node.name.as_str(), what)
        })
        .collect()
}

/// Bytes kept of an open slide, whatever its size, and for each of its tiles, when there are many.
fn kept(plan: &Plan) -> (u64, u64) {
    const MANY: u64 = 1 << 20;
    let many = weir_runtime::state_bytes(plan, MANY);
    let slope = (weir_runtime::state_bytes(plan, 2 * MANY) - many).div_ceil(MANY);
    (many.saturating_sub(slope * MANY), slope)
}

/// What a process holds beside the budget: what does not grow with slides and tiles.
struct Beyond {
    threads: u64,
    helpers: u64,
    /// Name of a stage, bytes of its model's weights, px of a tile's side.
    networks: Vec<(String, u64, u64)>,
}

impl Beyond {
    /// The program, its libraries and their tables.
    const PROGRAM: u64 = 64 << 20;
    /// Stack in use, the allocator's share, the native tile that is being decoded.
    const THREAD: u64 = 6 << 20;
    /// Activations of a network for each pixel of a tile: two layers of 64 channels of f32.
    const PIXEL: u64 = 512;

    fn of(plan: &Plan) -> Self {
        let network = |node: &Node| -> Option<(String, u64, u64)> {
            let name = node.values.text("model").ok()?;
            let model = plan.models.get(name)?;
            let weights = std::fs::metadata(model.weights()).map_or(0, |file| file.len());
            let runs = node.schema.name == "scorer" || node.schema.name == "encoder";
            runs.then(|| (node.name.clone(), weights, u64::from(model.input.size)))
        };
        // Pools and rankings have threads of their own, one set for all of them.
        let pools = plan.nodes.iter().any(|node| {
            node.schema.name == weir_stages::attention_pool::SCHEMA.name
                || node.schema.name == weir_stages::top_k::SCHEMA.name
        });
        let kernels = if pools { plan.run.helpers } else { 0 };
        let threads = plan.run.workers + plan.run.helpers + plan.run.readers + kernels;
        Beyond {
            threads: threads as u64,
            helpers: plan.run.helpers as u64,
            networks: plan.nodes.iter().filter_map(network).collect(),
        }
    }

    fn bytes(&self) -> u64 {
        let networks: u64 = self
            .networks
            .iter()
            .map(|(_, weights, px)| self.helpers * (weights + px * px * Self::PIXEL))
            .sum();
        Self::PROGRAM + self.threads * Self::THREAD + networks
    }

    fn formula(&self) -> String {
        let mut parts = vec![
            format!("{} of program", shown::bytes(Self::PROGRAM)),
            format!("{} threads x {}", self.threads, shown::bytes(Self::THREAD)),
        ];
        for (stage, weights, px) in &self.networks {
            parts.push(format!(
                "{stage}: {} helpers x ({} of weights + {px} x {px} px x {} B)",
                self.helpers,
                shown::bytes(*weights),
                Self::PIXEL
            ));
        }
        format!("{} = {}", parts.join(" + "), shown::bytes(self.bytes()))
    }
}

/// A slide of a dry run.
struct Slide {
    stage: usize,
    id: String,
    found: Result<std::sync::Arc<SlideInfo>, Failure>,
}

/// Opens every slide of every source, one after the other, as a run would; nothing is computed or written.
///
/// Of the plugins, only those with slide readers and with sources are loaded.
fn dry_run(
    Loaded { plan, checked }: &Loaded,
    catalogue: &Catalogue,
    manner: &Manner,
) -> Result<Vec<Slide>, Refusal> {
    pipeline::slides(plan)?;
    let opens = |plugin: &weir_pipeline::Plugin| {
        let mut nodes = plan.nodes.iter();
        let own = |node: &Node| plugin.schemas.iter().any(|it| it.name == node.schema.name);
        !plugin.readers.is_empty()
            || nodes.any(|node| node.schema.rows == Rows::Source && own(node))
    };
    let stop = Stop::default();
    let (plugins, types) = plugin::load_some(plan, checked, catalogue, &stop, manner, opens)?;
    let budget = Budget::new(plan.run.memory.saturating_sub(plan.of_plugins()) as usize);
    let slab = Slab::within(&budget);
    let shared = Shared::default();
    let Ok(_) = shared.get_or_try("", || Ok::<_, std::convert::Infallible>(Again(true)));
    let openers = weir_plugin_host::openers(&plugins);
    let Ok(_) = shared.get_or_try("", || Ok::<_, std::convert::Infallible>(openers));
    let Ok(_) = shared.get_or_try("", || Ok::<_, std::convert::Infallible>(plugins));
    let mut slides = Vec::new();
    for (stage, node) in plan.nodes.iter().enumerate() {
        if node.schema.rows != Rows::Source {
            continue;
        }
        let cx = Prepare {
            plan,
            node,
            shared: &shared,
            budget: &budget,
            slab: &slab,
        };
        let code = types
            .iter()
            .find(|code| code.schema.name == node.schema.name);
        let code = code.ok_or_else(|| {
            Refusal::internal(format!("no code for the stage type `{}`", node.schema.name))
        })?;
        let prepared = (code.prepare)(&cx).map_err(|error| {
            Refusal::usage(
                format!("stage `{}` cannot start: {}", node.name, error.what),
                error.help,
            )
        })?;
        let Prepared::Source(source) = prepared else {
            continue;
        };
        for slide in source.slides() {
            slides.push(Slide {
                stage,
                id: slide.id.clone(),
                found: source.open(slide).map(|opened| opened.info),
            });
        }
    }
    Ok(slides)
}

/// Bytes of the pixels that are read of a slide.
fn pixels(plan: &Plan, slide: &Slide, info: &SlideInfo) -> u64 {
    info.tiles * memory::tile(&plan.nodes[slide.stage]).unwrap_or(0)
}

fn json_of(plan: &Plan, slide: &Slide) -> Value {
    match &slide.found {
        Ok(info) => json!({
            "id": slide.id, "path": info.path, "reader": info.reader, "width": info.width, "height": info.height,
            "mpp": info.mpp.map(|(mpp, _)| mpp.0), "mpp_origin": info.mpp.map(|(_, origin)| origin),
            "tiles": info.tiles, "background": info.background, "pixel_bytes": pixels(plan, slide, info),
            "kept_bytes": weir_runtime::state_bytes(plan, info.tiles),
        }),
        Err(failure) => json!({ "id": slide.id, "failed": failure.what, "help": failure.help }),
    }
}

fn tell(plan: &Plan, slides: &[Slide], out: &mut dyn Write) -> std::io::Result<()> {
    let (mut tiles, mut bytes, mut largest) = (0, 0, 0);
    for slide in slides {
        match &slide.found {
            Ok(info) => {
                let read = pixels(plan, slide, info);
                let kept = weir_runtime::state_bytes(plan, info.tiles);
                tiles += info.tiles;
                bytes += read;
                largest = largest.max(kept);
                writeln!(
                    out,
                    "{}: {}, {} left out as background, {} of pixels, {} kept while it is open",
                    slide.id,
                    shown::counted(info.tiles, "tile"),
                    shown::count(info.background),
                    shown::bytes(read),
                    shown::bytes(kept)
                )?;
            }
            Err(_) => writeln!(out, "{}: cannot be read", slide.id)?,
        }
    }
    writeln!(
        out,
        "{}, {}, {} of pixels; the largest slide keeps {} of the budget of {}",
        shown::counted(slides.len() as u64, "slide"),
        shown::counted(tiles, "tile"),
        shown::bytes(bytes),
        shown::bytes(largest),
        shown::bytes(plan.run.memory)
    )
}
