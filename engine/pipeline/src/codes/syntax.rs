//! The file and its syntax.

super::codes! {
    E0101 Error "the file is not valid TOML"
"A pipeline file is TOML 1.0 (https://toml.io). weir reads on after a fault, so that all faults are shown at once; what a fault
spoils is not checked further.

The usual ones: a text without its quotes (`use = tile-reader`), a quote that is never closed, a key or a table given twice, a
missing comma in a list."

    E0102 Error "the file is not text"
"A pipeline file is UTF-8 text without NUL characters. This one holds other bytes: it was saved in another encoding (choose UTF-8 in
the editor, or `iconv -f latin1 -t utf-8 old > new`), or it is no pipeline file at all."

    E0104 Error "the file cannot be read"
"There is no file of this name, or it is a folder, or you may not read it. A path on the command line is relative to the folder that
you are in. weir shows the nearest name that it found beside it."

    E0105 Error "the file is too large"
"A pipeline file may have 1 MiB and 4096 stages. A larger one is almost always something else that was given by mistake, as a slide
or a manifest. Slides are named in the file, or by a manifest CSV; they do not stand in it."
}
