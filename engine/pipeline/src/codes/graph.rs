//! The graph.

super::codes! {
    E0401 Error "no such stage"
"`in` names a stage that the file does not have. A reference is `STAGE` or `STAGE.OUTPUT`, with the name of the `[stage.NAME]` table, not the
type that stands in `use`."

    E0402 Error "no such output"
"The stage has no output of this name; the message lists those that it has. Without a name, as in `in = \"pool\"`, a reference means the first output.
`weir stages TYPE` says what each output carries. A sink has none: it ends a branch of the graph."

    E0403 Error "an input gets something else than it takes"
"What flows from one stage to another has a kind: pixels, scores, picks, features, attention, bag, predictions. The input takes one kind, and
the output gives another. Often another output of the same stage is meant, or a stage is missing between the two: between pixels and features
stands an `encoder`."

    E0404 Error "shapes do not agree"
"Both ends of an edge have a shape, as features of 128 numbers, and the numbers differ. weir knows them before the run from the parameters and
from the models' `model.toml`. The message shows where each number comes from."

    E0405 Error "stages feed each other in a circle"
"A stage may not depend on its own output, directly or through others: a slide could never end. The message shows the whole way round. What
looks back at earlier tiles belongs into a reduce, which keeps state of a slide."

    E0406 Error "an input is not connected"
"The stage cannot work without this input. Name a feeder: `in = \"STAGE\"` for the first input, `in = { INPUT = \"STAGE.OUTPUT\", .. }` for others.
`weir stages TYPE` lists the inputs and says which may be left out."

    E0407 Error "no such input"
"`in = { NAME = .. }` names an input that the stage's type does not have; the message lists those that it has. The name on the left is the input of this
stage, the one on the right is the stage that feeds it: `in = { scores = \"score\" }`."

    E0409 Error "an input takes one stream"
"A list of feeders merges streams of one kind, and only some inputs can take that. Others need the one stream that they are named for:
a scorer that took two streams of pixels could not say which slide's grid a tile belongs to. `weir stages TYPE` says `one or several` where a list is taken."

    E0410 Error "a source with `in`"
"A source begins a graph: it opens slides and sends their tiles, and takes nothing from other stages. Remove `in`, or put the stage that was meant
after the source."

    W0412 Warning "what a stage sends reaches no sink"
"The stage works, and nothing of it is ever written or shown. Connect a sink (`predictions-sink`, `tiles-sink`, ...), or remove the stage: it
costs time and memory."

    E0413 Error "inputs of different sources are joined"
"A stage with several inputs, or with a list of feeders at one input, joins what they say of one slide. Here they come from different
sources, whose slides never meet, so no slide could ever be finished. Give each source its own stage."

    E0415 Error "the same stream twice"
"A list of feeders merges streams, and here one of them stands in it twice: every tile would come twice. Name it once. Several stages may take the
same output; nothing is copied for that."

    W0416 Warning "the encoder sees other pixels than the scorer"
"`tile-fetch` reads the chosen tiles again as they are in the slide. A stage that changes pixels stands between the reader and the scorer, and
none of its type between `tile-fetch` and the encoder: the two networks would see differently prepared tiles. Put the same stage behind
`tile-fetch` too."

    W0417 Warning "an answer may depend on a tile's neighbours"
"When a model is loaded, weir runs the same tiles alone and among others, and compares what comes out bit for bit. With this executor on this
device they differ, so that a run with another order of tiles may give slightly other numbers. `run.json` says `deterministic: false`. Another executor
(`--executor burn`) or the processor (`--device cpu`) gives the same answer always."

    W0418 Warning "one bag, two models"
"Encoder, attention and classifier of a bag model were trained together. Here they come from different models whose numbers happen to fit, so that
the prediction means nothing unless this is an experiment."

    E0419 Error "the tiles are not what the model was trained on"
"A network that was trained on tiles of one size and one resolution says something about tiles of that size and resolution and nothing
about others. `model.toml` says under `[input]` what it was trained on: `size` in pixels, `mpp` in micrometres a pixel. Set the reader's `size` and
`mpp` to these numbers; the reader resamples any slide to them."

    E0420 Error "a model of another kind"
"A `scorer` model scores tiles; a `bag` model encodes, attends and classifies. `kind` in `model.toml` says which it is. The stage takes the other kind.
Usually two names were exchanged: the scorer takes model A, and encoder, attention-pool and classifier take model B."

    E0421 Error "a stage that takes nothing back in a live run"
"With `run.live = true` tiles may be withdrawn or come again while a slide is open, so a reduce must be able to take back what it was given. This one says of itself that it cannot: it works in
batches, where a slide is complete before anything is made of it. Set `live = false`, or use another stage."
}
