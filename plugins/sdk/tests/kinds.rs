//! Each kind of stage, and a reader, through the border and back.
#![allow(clippy::unwrap_used)]

#[path = "kinds/gather.rs"]
mod gather;
#[path = "kinds/reader.rs"]
mod reader;
#[path = "kinds/rows.rs"]
mod rows;
#[path = "kinds/source.rs"]
mod source;

use gather::{Sum, Write};
use reader::Grey;
use rows::{Invert, Params};
use source::MadeUp;

/// The whole of it is a manifest that weir takes.
#[test]
fn the_manifest_is_one_that_the_host_takes() {
    use weir_plugin::export::{ABI, Declared, DeclaredReader};
    let text = format!(
        "{{\"weir-abi\":\"{ABI}\",\"name\":\"all\",\"version\":\"1.0.0\",\"summary\":\"All\",\"stages\":[{}],\"readers\":[{}]}}",
        [
            Invert::MANIFEST.concat(),
            Params::MANIFEST.concat(),
            Sum::MANIFEST.concat(),
            Write::MANIFEST.concat(),
            MadeUp::MANIFEST.concat()
        ]
        .join(","),
        <Grey as DeclaredReader>::MANIFEST.concat()
    );
    let manifest = weir_plugin_host::manifest::Manifest::parse(text.as_bytes()).unwrap();
    let params = &manifest.stages[1];
    assert_eq!(params.params.len(), 11);
    assert_eq!(params.params[3].doc, "A \"text\" with \\ in it.");
    assert!(params.params[7].required && !params.params[10].required);
    assert_eq!(params.params[4].values, ["one", "two-words", "THREE"]);
    assert_eq!(
        (params.params[1].min, params.params[10].max),
        (Some(-1.0), None)
    );
    assert_eq!(manifest.stages[2].state.tile, 24);
    assert_eq!(manifest.readers[0].extensions, ["grey"]);
}
