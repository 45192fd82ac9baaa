//! Whether a stage's ports can be what they say: of each kind rows have a shape of their own.

use super::check::{NAME, is_name};
use super::{Dim, Port, Stage};
use weir_pipeline::Kind;

/// What the dimensions of a kind's rows are, in words.
fn form(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Pixels => &["height", "width", "3"],
        // Sizes of the tile that is scored, for who reads it again.
        Kind::Scores => &["height", "width", "classes"],
        Kind::Picks => &["height", "width"],
        Kind::Features | Kind::Bag => &["numbers of a vector"],
        Kind::Predictions => &["classes"],
        Kind::Attention | Kind::Table => &[],
    }
}

impl Stage {
    /// What is wrong with its ports, of each the first that is found.
    pub(super) fn port_faults(&self) -> impl Iterator<Item = String> {
        let ins = self.ins.iter().map(|port| (port, false));
        let outs = self.outs.iter().map(|port| (port, true));
        ins.chain(outs).filter_map(|(port, is_output)| {
            let said = self
                .check_port(port)
                .and_then(|()| check_shape(port, is_output))
                .and_then(|()| match is_output {
                    true => self.check_names(port),
                    false => Ok(()),
                });
            Some(format!("port `{}`: {}", port.name, said.err()?))
        })
    }

    fn check_port(&self, port: &Port) -> Result<(), String> {
        if !is_name(&port.name) {
            return Err(format!("its name is not of the form {NAME}"));
        }
        // Scores and picks speak of tiles that a `tile-fetch` may read again.
        let of_tiles = matches!(port.kind, Kind::Pixels | Kind::Scores | Kind::Picks);
        if port.mpp.is_some() && !of_tiles {
            return Err("only pixels, scores and picks have an `mpp`".into());
        }
        for dim in port.shape.iter().chain(&port.mpp) {
            match dim {
                Dim::Fixed(number) if !(number.is_finite() && *number > 0.0) => {
                    return Err(format!("a dimension is {number}"));
                }
                Dim::Name(name) => {
                    if let Some(param) = name.strip_prefix('$')
                        && !self.params.iter().any(|known| known.name == param)
                    {
                        return Err(format!("there is no parameter `{param}` for `{name}`"));
                    }
                }
                Dim::Fixed(_) => {}
            }
        }
        Ok(())
    }

    /// Every size of what a stage makes comes from somewhere: memory is had for it before the stage is called.
    fn check_names(&self, made: &Port) -> Result<(), String> {
        let bound = |name: &str| {
            let mut dims = self.ins.iter().flat_map(|port| &port.shape);
            dims.any(|dim| matches!(dim, Dim::Name(known) if known == name))
        };
        for dim in &made.shape {
            if let Dim::Name(name) = dim
                && !name.starts_with('$')
                && !bound(name)
            {
                return Err(format!(
                    "no input has a dimension `{name}`, so nobody knows how large it is: write a number, or \"$NAME\" of a parameter"
                ));
            }
        }
        Ok(())
    }
}

/// That it has as many dimensions as rows of its kind. An input may have none: it takes rows of any size.
fn check_shape(port: &Port, is_output: bool) -> Result<(), String> {
    let form = form(port.kind);
    let any = !is_output && port.shape.is_empty();
    // It has no numbers of its own: it may say nothing of its tile, or its channels as well.
    let of_picks = port.kind == Kind::Picks && matches!(port.shape.len(), 0 | 3);
    if port.shape.len() != form.len() && !any && !of_picks {
        return Err(format!(
            "rows of {} have the shape [{}], and its `shape` has {} dimensions",
            port.kind.name(),
            form.join(", "),
            port.shape.len(),
        ));
    }
    for dim in &port.shape {
        if let Dim::Fixed(number) = dim
            && number.fract() != 0.0
        {
            return Err(format!("a dimension is {number}, which is no whole number"));
        }
    }
    match (port.kind, port.shape.get(2)) {
        (Kind::Pixels, Some(channels)) if *channels != Dim::Fixed(3.0) => {
            Err("pixels are RGB: the third dimension of their shape is 3".into())
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use crate::manifest::Manifest;

    fn said(rows: &str, takes: &str, gives: &str) -> String {
        let text = format!(
            r#"{{ "weir-abi": "1.0", "name": "probe", "version": "0.3.1", "summary": "For tests", "stages": [
              {{ "id": "probe.own", "summary": "For tests", "rows": "{rows}", {takes} {gives}
                "params": [ {{ "name": "size", "type": "int", "default": 8, "doc": "Numbers" }} ] }} ] }}"#
        );
        match Manifest::parse(text.as_bytes()) {
            Ok(_) => String::new(),
            Err(refusal) => refusal.what,
        }
    }

    #[test]
    fn rows_have_the_shape_of_their_kind() {
        let takes = |kind: &str, shape: &str| {
            format!(r#""in": [ {{ "name": "x", "kind": "{kind}", "shape": {shape} }} ],"#)
        };
        let gives = |kind: &str, shape: &str| {
            format!(r#""out": [ {{ "name": "y", "kind": "{kind}", "shape": {shape} }} ],"#)
        };
        let tiles = takes("pixels", r#"["h", "w", 3]"#);
        for (kind, shape) in [
            ("pixels", r#"["h", "w", 3]"#),
            ("scores", r#"["h", "w", 2]"#),
            ("picks", r#"["h", "w"]"#),
            ("picks", r#"["h", "w", 3]"#),
            ("picks", "[]"),
            ("features", r#"["$size"]"#),
            ("attention", "[]"),
            ("table", "[]"),
        ] {
            assert_eq!(
                said("map", &tiles, &gives(kind, shape)),
                "",
                "{kind} {shape}"
            );
            assert_eq!(said("map", &takes(kind, "[]"), &gives("table", "[]")), "");
        }
        for (kind, shape, word) in [
            (
                "scores",
                "[2]",
                "rows of scores have the shape [height, width, classes]",
            ),
            (
                "pixels",
                r#"["h"]"#,
                "rows of pixels have the shape [height, width, 3]",
            ),
            ("pixels", r#"["h", "w", 4]"#, "pixels are RGB"),
            ("features", "[3, 4]", "and its `shape` has 2 dimensions"),
            ("features", "[3.5]", "no whole number"),
            ("features", r#"["d"]"#, "no input has a dimension `d`"),
            (
                "predictions",
                "[]",
                "rows of predictions have the shape [classes]",
            ),
            ("table", "[1]", "rows of table have the shape []"),
        ] {
            let found = said("map", &tiles, &gives(kind, shape));
            assert!(found.contains(word), "{kind} {shape}: {found:?}");
        }
        let found = said("sink", &takes("features", "[3, 4]"), "");
        assert!(
            found.contains("and its `shape` has 2 dimensions"),
            "{found:?}"
        );
    }
}
