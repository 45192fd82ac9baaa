//! The macros of `weir-plugin`; their pages stand there.

mod attribute;
mod choice;
mod export;
mod json;
mod param;
mod port;
mod reader;
mod stage;

use proc_macro::TokenStream;
use syn::{DeriveInput, parse_macro_input};

/// A struct that is a stage: what stands here becomes its part of the manifest.
///
/// ```text
/// /// One line for lists.
/// ///
/// /// More, in full sentences.
/// #[derive(weir_plugin::Stage)]
/// #[stage(filter, id = "bright.filter", deterministic)]
/// #[input(tiles: pixels[height, width, 3])]
/// #[output(tiles: pixels[height, width, 3])]
/// struct Filter {
///     /// What it means, with its unit.
///     #[param(default = 220.0, min = 0.0, max = 255.0)]
///     limit: f64,
///     seen: AtomicU64, // no parameter: begins as its Default
/// }
/// ```
///
/// | `#[stage(..)]` | |
/// |---|---|
/// | `source`, `map`, `filter`, `reduce`, `sink` | the kind; the struct implements the trait of that name |
/// | `id = "NAMESPACE.NAME"` | what a pipeline's `use` says; the namespace is the plugin's name |
/// | `parallel`, `serial`, `per_worker` | how its calls may run: several at a time (maps and filters, unless they say otherwise), one at a time, an instance for each helper thread |
/// | `deterministic` | same rows, same bits, whatever their batch |
/// | `batch_only` | a reduce that takes no withdrawals, so it is refused in live runs |
/// | `deliver = "generation"` | a reduce that gets whole generations |
/// | `place = "first"` | a sink whose rows all come to one process |
/// | `state(slide = 64, tile = 16, feature = 4)` | bytes that are kept of an open slide: once, for each tile, for each number of a tile's feature vector |
/// | `memory = "PARAM"` | the parameter, a `Bytes`, that says what an instance allocates at most, whatever slides are open; it is taken out of `run.memory` |
/// | `example = "..."` | a `[stage.X]` table that works |
///
/// `#[input(NAME: KIND[DIM, ..], ..)]` and `#[output(..)]`, once a port, in order. KIND is `pixels`, `scores`, `picks`, `features`,
/// `attention`, `bag`, `predictions` or `table`; a DIM is a number, a name that means the same number on all ports of the stage, or
/// `"$param"`, a parameter's value. Then `doc = "..."`, `mpp = DIM` (pixels), `many`, `optional` (inputs).
///
/// `#[param(..)]`: `default = LITERAL`, `min`, `max`, `exists` (a path that must exist; its bytes are part of the plan), `extensions = ["h5"]` (of slides: files that folders are searched for), `name = "other-name"`. The type of the field
/// says what is taken (`weir_plugin::param::Param`). Without a default it is required, unless it is an `Option`.
#[proc_macro_derive(Stage, attributes(stage, input, output, param))]
pub fn stage(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    stage::derive(&input)
        .unwrap_or_else(syn::Error::into_compile_error)
        .into()
}

/// A struct that is an open slide of a slide reader.
///
/// ```text
/// /// One line for lists.
/// #[derive(weir_plugin::Reader)]
/// #[reader(id = "raw", extensions = ["raw"], parallel)]
/// struct Raw { .. }
/// ```
///
/// `cache(BYTES, "VARIABLE")`: what it keeps of all slides of a process together, and the environment variable that says another
/// size; weir counts it as part of `run.memory`.
/// `parallel`: regions of one slide may be read on several threads at once. `spoils`: after an error the slide is opened again.
#[proc_macro_derive(Reader, attributes(reader))]
pub fn reader(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    reader::derive(&input)
        .unwrap_or_else(syn::Error::into_compile_error)
        .into()
}

/// An enum of unit variants as a parameter that takes one of several texts: `MaxPool` is `"max-pool"`, or what `#[choice("..")]` says.
#[proc_macro_derive(Choice, attributes(choice))]
pub fn choice(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    choice::derive(&input)
        .unwrap_or_else(syn::Error::into_compile_error)
        .into()
}

/// Makes a library of these a plugin: its one symbol and its manifest.
///
/// ```text
/// weir_plugin::export! { name: "bright", stages: [Filter], readers: [] }
/// ```
///
/// The version is the package's; `summary: ".."` and `licence: ".."` are the package's description and license unless they are given.
/// `describe: PATH` is a `fn(&Path, &Call) -> Result<()>` that says in lines of the log (`Call::info`) what a file is to the plugin, as
/// a model that it would run: `weir plugin inspect` asks it.
#[proc_macro]
pub fn export(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as export::Export);
    export::expand(&input)
        .unwrap_or_else(syn::Error::into_compile_error)
        .into()
}
