//! Models.

super::codes! {
    E0701 Error "a model cannot be read"
"A model is a folder with `model.toml`, which says what it is, and `weights.safetensors`. One of the two is missing, is not what its name says, or
holds a value that makes no sense. The message names the file, the line and the key. `weir train` writes such folders."

    E0702 Error "a hash differs"
"The SHA-256 of a model's weights is not the one that `model.toml`, or `sha256` in the pipeline file, says. The file was damaged on its way,
or it is another model. When the change was wanted, put the new hash into `sha256`; both are in the message."

    E0703 Error "no such model"
"`model = \"x\"` names a table `[model.x]` that the file does not have. Models are declared once and named by the stages that use them:

    [model.x]
    path = \"models/x\"

`path` is a folder with `model.toml` and `weights.safetensors`, relative to the pipeline file."

    E0704 Error "the weights do not fit `model.toml`"
"`weights.safetensors` says in its header which arrays it holds and how large they are. They are not those of the network that `model.toml` describes."

    W0705 Warning "a model is used by nobody"
"A `[model.X]` is declared, and no stage names it. It is read and hashed all the same, and its hash is part of the
plan's, so that a change of it makes finished slides be computed again. Remove the table, or name the model in a stage."
}
