//! The structure of a file, its variables, and the command line.

super::codes! {
    E0201 Error "the format version is missing or newer"
"A pipeline file says which version of the format it is written in: `weir = 1`, on a line of its own before the first table. This
version of weir reads version 1. A higher number means that the file was written for a later weir."

    E0202 Error "unknown key"
"A table holds a key that weir does not know there. At the top of a file stand `weir`, `name`, `doc` and the tables `[var.X]`, `[run]`,
`[model.X]`, `[plugin.X]`, `[stage.X]` and `[[test]]`; each table has its own keys. Keys are never ignored, because a misspelt setting
that does nothing is worse than a message."

    E0203 Error "a stage has no `use`"
"Every `[stage.NAME]` says which stage type it is: `use = \"tile-reader\"`. `weir stages` lists the types, `weir stages NAME` shows one with
an example. The name of the table is yours to choose; what other stages refer to is that name, not the type."

    E0204 Error "unknown stage type"
"`use` names a stage type that is not there. `weir stages` lists the built-in ones, whose names have no dot. A name with a dot belongs to the plugin before the dot:
`weir plugin inspect NAME` lists what that plugin has. `use` takes the type; `in` takes the names of stages."

    E0205 Error "not a name"
"Stages, variables, models, plugins and tests of a pipeline are named by lower-case letters, digits and hyphens, a letter first: `top`, `score-2`.
Such names stand in references (`score.scores`), in variables of the environment (`WEIR_VAR_X`) and in outputs without quoting."

    E0206 Error "unknown variable"
"`${x}`, or `x=value` on the command line, names a variable that the file does not declare. Declare it:

    [var.x]
    type = \"string\"
    default = \"...\"

`$${` stands for the two characters `${` themselves."

    E0207 Error "a variable has no value"
"A variable without `default` must be given. The ways, the later winning over the earlier: the variable of the environment that
`default-env` names, `WEIR_VAR_X`, `x=value` on the command line, `--set 'var.x.default=\"value\"'`."

    E0208 Error "a variable of the environment is used without being declared"
"`${env:HOME}` would make a pipeline depend on who runs it without saying so. Declare a variable that takes its default from there:

    [var.home]
    type = \"path\"
    default-env = \"HOME\"

and write `${home}`."

    E0209 Error "a variable's value does not fit its declaration"
"A variable has a type (`string`, `integer`, `float`, `boolean`, `path`, `list`) and may have `min`, `max` or `values`. The value that it got,
from its default, the environment or the command line, is checked against them. On the command line a list is `x=a x=b`, or in TOML
`x='[\"a\", \"b\"]'`."

    E0210 Error "the pipeline has no stages"
"A pipeline needs at least a source and a sink: `[stage.NAME]` tables with `use =`. `weir new pipeline FILE` writes a file to start from,
with the usual graph from slides to predictions."

    W0211 Warning "a variable is used by nobody"
"A `[var.X]` is declared, and no `${X}` stands in the file. Giving it a value changes nothing, which is probably not what its reader expects.
Write `${X}` where the value belongs, or remove the table."

    E0213 Error "an override cannot be applied"
"`--set KEY=VALUE` sets one key of the file before it is checked: `--set stage.top.highest=64`, `--set run.memory='\"2GiB\"'`. The key is a path with
dots, the value is TOML, so texts need quotes inside the shell's. A variable is given as `NAME=VALUE`, without `--set` and without quotes."

    E0214 Error "the pipeline has no source or no sink"
"Something must open slides, and something must write what was found. A source is a stage type that takes nothing, as `tile-reader`; a sink is one that sends
nothing, as `predictions-sink`. `weir stages` says of every type which it is."
}
