//! The few attributes of OME-XML that a reader of slides needs (OME Data Model 2016-06: Image, Pixels, TiffData, Objective).
//!
//! Only start tags and their attributes are looked at, without entities, namespaces or nesting, so nothing in the text can make
//! this slow or deep.

use std::collections::BTreeMap;

/// What the XML in the first directory says.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Ome {
    /// PhysicalSizeX and PhysicalSizeY of the first image, um.
    pub(crate) pixel_size: Option<(f64, f64)>,
    /// NominalMagnification of the first objective.
    pub(crate) magnification: Option<f64>,
    /// SizeC over samples a channel, of the first image.
    pub(crate) channels: u64,
    /// Names of images by the directory that they begin in.
    pub(crate) names: BTreeMap<usize, String>,
    pub(crate) properties: BTreeMap<String, String>,
}

impl Ome {
    /// `None` when `text` is no OME-XML.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let head = text.trim_start_matches('\u{feff}').trim_start();
        if !head.starts_with('<') || !text.contains("<OME") && !text.contains(":OME") {
            return None;
        }
        let mut ome = Ome::default();
        let (mut image, mut images, mut pixels) = (String::new(), 0, 0);
        for tag in start_tags(text) {
            let value = |name: &str| attribute(tag.attributes, name);
            let number = |name: &str| {
                value(name)
                    .and_then(|text| text.parse::<f64>().ok())
                    .filter(|number| number.is_finite())
            };
            match tag.name {
                "Image" => {
                    images += 1;
                    image = value("Name").unwrap_or_default().to_string();
                }
                "Pixels" => {
                    pixels += 1;
                    if pixels > 1 {
                        continue;
                    }
                    let scale = |unit: &str| length_in_um(value(unit).unwrap_or("µm"));
                    let x = number("PhysicalSizeX").zip(scale("PhysicalSizeXUnit"));
                    let y = number("PhysicalSizeY").zip(scale("PhysicalSizeYUnit"));
                    ome.pixel_size = match (x, y) {
                        (Some((x, xu)), Some((y, yu))) => Some((x * xu, y * yu)),
                        (Some((x, xu)), None) => Some((x * xu, x * xu)),
                        _ => None,
                    };
                    ome.channels = number("SizeC").unwrap_or(1.0) as u64;
                    for key in [
                        "PhysicalSizeX",
                        "PhysicalSizeXUnit",
                        "PhysicalSizeY",
                        "PhysicalSizeYUnit",
                        "SizeC",
                        "SizeZ",
                        "SizeT",
                        "Type",
                    ] {
                        if let Some(text) = value(key) {
                            ome.properties.insert(format!("ome.{key}"), text.into());
                        }
                    }
                }
                "TiffData" => {
                    let ifd = value("IFD").and_then(|text| text.parse().ok()).unwrap_or(0);
                    if images > 0 {
                        ome.names.entry(ifd).or_insert_with(|| image.clone());
                    }
                }
                "Objective" if ome.magnification.is_none() => {
                    ome.magnification = number("NominalMagnification");
                }
                _ => {}
            }
        }
        if let Some(name) = ome.names.get(&0) {
            ome.properties.insert("ome.Name".into(), name.clone());
        }
        Some(ome)
    }
}

struct StartTag<'a> {
    name: &'a str,
    attributes: &'a str,
}

fn start_tags(text: &str) -> impl Iterator<Item = StartTag<'_>> {
    text.split('<').skip(1).filter_map(|piece| {
        let inside = piece.split('>').next()?.trim_end_matches('/');
        let (name, attributes) = inside
            .split_once(char::is_whitespace)
            .unwrap_or((inside, ""));
        let name = name.rsplit(':').next()?;
        Some(StartTag { name, attributes })
    })
}

fn attribute<'a>(attributes: &'a str, name: &str) -> Option<&'a str> {
    let mut rest = attributes;
    loop {
        let (key, after) = rest.split_once('=')?;
        let after = after.trim_start();
        let quote = after.chars().next().filter(|c| matches!(c, '"' | '\''))?;
        let (value, next) = after[1..].split_once(quote)?;
        if key.trim() == name {
            return Some(value);
        }
        rest = next;
    }
}

/// um in one of a unit of the OME schema's lengths; `None` for one that a slide has no use for.
fn length_in_um(unit: &str) -> Option<f64> {
    Some(match unit {
        "µm" | "μm" | "um" | "&#181;m" | "&#956;m" | "&#xb5;m" | "&#xB5;m" => 1.0,
        "nm" => 1e-3,
        "mm" => 1e3,
        "cm" => 1e4,
        "m" => 1e6,
        "pm" => 1e-6,
        "Å" => 1e-4,
        "in" => 25_400.0,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn pixel_size_honours_its_unit() {
        let xml = r#"<?xml version="1.0"?><OME><Image ID="Image:0" Name="scan"><Pixels SizeC="3" PhysicalSizeX="499" PhysicalSizeXUnit="nm" PhysicalSizeY="0.000499" PhysicalSizeYUnit='mm'><TiffData IFD="0"/></Pixels></Image><Image Name="label image"><Pixels PhysicalSizeX="9"><TiffData IFD="3"/></Pixels></Image></OME>"#;
        let ome = Ome::parse(xml).unwrap();
        let (x, y) = ome.pixel_size.unwrap();
        assert!((x - 0.499).abs() < 1e-12 && (y - 0.499).abs() < 1e-12);
        assert_eq!(ome.names[&3], "label image");
        assert_eq!(ome.channels, 3);
    }

    #[test]
    fn text_that_only_looks_like_xml_is_no_ome() {
        assert_eq!(Ome::parse("Aperio <OME"), None);
        assert_eq!(Ome::parse("<html>"), None);
        assert!(Ome::parse("<OME <Pixels PhysicalSizeX=\"").is_some());
    }
}
