//! Parameters of stages and settings.

super::codes! {
    E0301 Error "unknown parameter"
"The stage's type has no parameter of this name. `weir stages TYPE` lists the parameters with their types, ranges and defaults.
Beside these, every stage takes `use`, `in`, `run` and `doc`. How a stage is run (batch, linger, timeout, retries, device) stands in `run = { .. }`."

    E0302 Error "a value of the wrong type"
"The key takes another type of value: a number written as a text (`size = \"224\"`: leave out the quotes), a text without quotes, a single text
where a list belongs. `weir stages TYPE` says what a parameter takes; a string that is exactly `${x}` takes the type of the variable x."

    E0303 Error "a stage refused to start"
"What the stage was given is of the right type and within its range, and it cannot work with it all the same: two parameters do not go together, a pattern matches no file, a list of
slides holds the same name twice, a model is of another kind. The message is the stage's own, and marks the parameter that it blames, at its line or, where it has its default, at the stage."

    E0304 Error "not one of the values"
"The key takes one of a few words, which the message lists; `weir stages TYPE` lists them too. They are written in quotes and in small
letters: `tissue = \"otsu\"`."

    E0305 Error "out of range"
"The number lies outside of what the key allows; the message says the range. Ranges are wide: what they shut out does not work, or is a slip
as a millimetre for a micrometre."

    E0306 Error "a required parameter is missing"
"The stage cannot work without this parameter and has no sensible default for it. The message shows a line to add, with a value
from the type's example that you should think about before you keep it."

    E0307 Error "keys exclude each other"
"Two keys of a table say the same thing in two ways, and only one of them can hold. In the `feed` of a test, one of `colour`, `tiles`, `slides` and `script`
says what the source is fed with. Remove the other."

    E0308 Error "a path cannot be read"
"A file or folder that the pipeline reads is not there, or may not be read: the bytes of what a stage reads are part of the plan, so they are read before anything runs. Paths in the file are relative to the file's folder; paths on the command line and in
`WEIR_VAR_X` are relative to the folder that you are in. weir shows the nearest name that it found."

    E0309 Error "not a size or a duration"
"A size is a whole number and a unit in a text, as `\"64MiB\"` (units: B, KiB, MiB, GiB, TiB, and kB, MB, GB, TB for powers of ten), or bytes as a
number. A duration is a number and a unit, as `\"20ms\"` (units: ns, us, ms, s, m, h, d). There is no space before the unit."
}
