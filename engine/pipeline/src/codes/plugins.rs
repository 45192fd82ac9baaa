//! Plugins.

super::codes! {
    E0501 Error "a plugin was not found"
"`[plugin.NAME]` names a plugin, and there is no such file. With `path` it is that file, relative to the pipeline file. Without, `libweir_NAME.so` and `libNAME.so` are looked for
in the folders of `WEIR_PLUGIN_PATH`, in `plugins` beside the program, in `$XDG_DATA_HOME/weir/plugins` (else `~/.local/share/weir/plugins`), in
`/usr/local/lib/weir/plugins` and in `/usr/lib/weir/plugins`; a hyphen of the name may be an underscore there. The message lists every place, and folders that were named
and not looked into, with the reason. `weir plugin list` shows the folders, and what lies in them."

    E0502 Error "a plugin's stage is used, and the plugin is not named"
"A stage type with a dot, as `stain.normalise`, belongs to the plugin whose name stands before the dot. Only plugins that a file names are ever touched, so it needs a
table, which may be empty:

    [plugin.stain]

`path`, `version`, `sha256` and `isolate` may stand in it. Built-in stage types have no dot; `weir stages` lists them."

    E0503 Error "not a weir plugin"
"The file is a sound shared library, but none that weir can use: a plugin exports the function `weir_plugin_v1` and describes itself in the section `.weir.manifest`, or in NAME.manifest.json beside libNAME.so. The message says
which of the two is missing and what the library exports instead. Often another library of the same build was named. plugins/README.md says how a plugin is made."

    E0504 Error "a plugin's manifest is invalid"
"A plugin describes itself in JSON: its name and version, its stages with their ports and parameters, its slide readers. Something in it does not follow the format, it speaks of
another plugin than the table that names it, or a NAME.manifest.json beside the library says something else than the section in it. Nothing of the plugin was run. Its author must mend it; `weir plugin inspect FILE` shows what a plugin says of itself."

    E0505 Error "a plugin speaks another plugin ABI"
"A plugin is built against a version of the plugin ABI, and runs in every weir that speaks the same major version and the same or a later minor one. This one needs more, or another major version.
It was refused before any of it was loaded. Take a weir that is new enough, or a build of the plugin for this one."

    E0506 Error "a plugin's file is damaged or of another machine"
"A plugin is an ELF shared library for this machine's processor. The file was cut off or damaged on its way, is of another kind, or was built for another processor; a loader
that touched it could bring the program down, so it was refused before. Copy or build it again."

    E0507 Error "a plugin's hash differs"
"`sha256` in `[plugin.X]` pins the plugin to the very bytes that somebody looked at, and the file (or the manifest beside it) has others: it was updated, rebuilt, damaged, or replaced by somebody. Nothing of it was run. When the change
was wanted, `weir plugin pin FILE` writes the new hash; else find out who changed the file."

    E0508 Error "a plugin is not allowed"
"What a plugin's code does, weir does. So it is refused when anybody on the machine could have put it there (the file or its folder is writable by all), when the machine's owner
allows no plugins or only pinned ones (`plugins = \"none\" | \"pinned\" | \"any\"` in `/etc/weir/weir.toml`) or by `isolate = \"always\"` that none runs in weir's own process, as `weir plugin inspect --file` has it, and when `weir run --locked` finds one without `sha256`. `weir plugin pin
FILE` writes the hashes of the plugins that a pipeline names."

    E0509 Error "a plugin could not be loaded"
"The file was found sound, and the system's loader refused it all the same; its own words stand in the message. Most often a library that the plugin needs is not installed: `ldd FILE` marks it
as not found. `cannot allocate memory in static TLS block` means that the plugin brings an allocator of its own (jemalloc, mimalloc): build it without."

    E0510 Error "a plugin refused to start"
"The plugin was loaded, and its entry function `weir_plugin_v1` said that it cannot work here. What it said stands in the message. No stage of it was made. Ask its author when the message is not enough;
`weir plugin check FILE` tries everything that can be tried without a pipeline."

    W0511 Warning "a plugin was found more than once"
"Plugins that are named without `path` are looked for in several folders, and the first file of that name is used. Here later folders hold one too, as after an update into another place. Say by `path`
which one is meant, or remove the others. `weir plugin list` shows all of them."

    E0512 Error "a plugin has another version than was asked for"
"`version` in `[plugin.X]` is a requirement on the version that the plugin says of itself, written as cargo has it: `\"1.2\"` takes 1.2 and later below 2, `\"~1.2\"` stays within 1.2, `\"=1.2.3\"` takes only
that one, and `\">=1.2, <1.5\"` is a range. Change the requirement, or take another build of the plugin."

    E0513 Error "a plugin is not what its manifest says"
"The stages and readers that the loaded plugin hands over are not those of its manifest, in number, name or what they can do. What was checked would not be what runs, so it is used no further. Its author must mend it;
`weir plugin check FILE` shows the difference."

    E0514 Error "a plugin's stage cannot be made ready"
"The plugin was loaded, and said that this stage of it cannot work here, whatever its parameters are: most often a library or a device that it needs is missing. What it said stands in the message, with what
to do where it knows that. Nothing was read or computed."

    W0515 Warning "a folder of plugins is not looked into"
"Plugins that are named without `path` are looked for in several folders, and one of `WEIR_PLUGIN_PATH` was passed over: a relative entry does not count. It would be another folder in every working folder,
and whoever can write there would decide what weir runs. Write it in full, as `$PWD/plugins`. `weir plugin list` shows every folder, and what became of looking into it."

    E0520 Error "a plugin broke its contract"
"A plugin must make exactly one outcome of every tile, on declared ports, with declared columns, while its call is open. It did something else: lost a tile, gave one twice, wrote to a port that it does not have, or completed a
call twice. The message says what. The rows of that call were tried alone, and the one at which it happens again has failed; of a source it is the tile or slide that it was asked for, of a reduce or a sink the slide. Nothing was invented in their place. `weir plugin check FILE` helps its author to find it."

    E0521 Error "a plugin's process died"
"A plugin with `isolate = true` runs in a process of its own, and that process ended: by a signal as 6 (it called abort) or 11 (it touched memory that is not there), by the kernel for want of memory, or by itself. The message
says how, and where. The rows of that call were tried alone, and the one that ends the process again has failed; of a slide reader it is the region, of a source, a reduce or a sink the slide. The process was started
again, and other slides went on; a slide of which 100 tiles in a row end it is asked about no more."

    E0522 Error "a plugin panicked"
"The plugin's code met something that its author held for impossible. The guard of its SDK caught that, with file and line, so that weir goes on; but the instance may be left half done, and is used no
more. Please report the message to the plugin's author."

    E0523 Error "a plugin hung"
"A call into the plugin did not end within `timeout` (`run = { timeout = \"60s\" }` of the stage; of a slide reader, of the stage that reads slides with it, `timeout` in `[data]` of a training's recipe, `--timeout` of `weir inspect`), even after it was asked to stop. A thread that runs foreign code cannot be ended safely, so it is left alone and its instance is used no more;
with `isolate = true` its process is ended and started again. Tiles of that call have failed; a slide of which three tiles in a row hang is asked about no more, and others go on. In weir's own process a source, a reduce, a sink or a slide reader that hangs holds up what waits for it: the message names its function and slide, and isolation ends it. Give more time where the work needs it."

    E0524 Error "two plugins have the same name for something"
"Stage types and slide readers are asked for by their ids, and two plugins of this run have one in common: whichever came first would silently do the other's work. The ids of stage types begin with the
plugin's own name, so those meet only where two files of one plugin are named; the ids of slide readers are free words. Remove one of the two, or have its author give the reader another id."
}
