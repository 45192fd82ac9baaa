//! What a reader found in a slide, as bytes.

use crate::wire::{Garbage, Reader, Writer};
use weir_slide::Associated;
use weir_slide::leveled::{Found, FoundLevel, Said};

/// Who said the size of a pixel, by their number; 0: nobody.
const WHO: [Said; 3] = [Said::Vendor, Said::Resolution, Said::Objective];

/// Bytes in a list.
const LEVEL: usize = size_of::<FoundLevel>();
const PICTURE: usize = size_of::<Associated>();
const PROPERTY: usize = size_of::<(String, String)>();

pub(crate) fn write_found(out: &mut Writer, found: &Found) {
    out.text(&found.format);
    out.text(&found.vendor);
    let ((x, y), who) = match found.pixel {
        None => ((0.0, 0.0), 0),
        Some((um, said)) => {
            let who = WHO.iter().position(|who| *who == said);
            (um, who.map_or(0, |who| who as u8 + 1))
        }
    };
    out.u8(who);
    out.f64(x);
    out.f64(y);
    out.list::<LEVEL, _>(&found.levels, |out, level| {
        out.u32(level.width);
        out.u32(level.height);
        out.f64(level.downsample);
        let (width, height) = level.tile.unwrap_or((0, 0));
        out.u32(width);
        out.u32(height);
    });
    out.list::<PICTURE, _>(&found.pictures, |out, picture| {
        out.text(&picture.name);
        out.u32(picture.width);
        out.u32(picture.height);
    });
    let properties: Vec<_> = found.properties.iter().collect();
    out.list::<PROPERTY, _>(&properties, |out, (key, value)| {
        out.text(key);
        out.text(value);
    });
}

pub(crate) fn read_found(from: &mut Reader) -> Result<Found, Garbage> {
    let (format, vendor) = (from.text()?, from.text()?);
    let (who, um) = (from.u8()?, (from.f64()?, from.f64()?));
    Ok(Found {
        format,
        vendor,
        pixel: match who {
            0 => None,
            who => {
                let said = WHO.get(who as usize - 1);
                let said = said.ok_or(Garbage("a size of a pixel that nobody said"))?;
                Some((um, *said))
            }
        },
        levels: from.list::<LEVEL, _>(|from| {
            let (width, height, downsample) = (from.u32()?, from.u32()?, from.f64()?);
            let tile = (from.u32()?, from.u32()?);
            Ok(FoundLevel {
                width,
                height,
                downsample,
                tile: (tile.0 > 0 && tile.1 > 0).then_some(tile),
            })
        })?,
        pictures: from.list::<PICTURE, _>(|from| {
            Ok(Associated {
                name: from.text()?,
                width: from.u32()?,
                height: from.u32()?,
            })
        })?,
        properties: from
            .list::<PROPERTY, _>(|from| Ok((from.text()?, from.text()?)))?
            .into_iter()
            .collect(),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_was_found_is_read_as_it_was_written() {
        let level = FoundLevel {
            width: 40,
            height: 30,
            downsample: 1.0,
            tile: None,
        };
        for pixel in [None, Some(((0.5, 0.25), Said::Objective))] {
            let found = Found {
                format: "probe-1".into(),
                vendor: "nobody".into(),
                pixel,
                levels: vec![
                    level,
                    FoundLevel {
                        tile: Some((16, 8)),
                        ..level
                    },
                ],
                pictures: vec![Associated {
                    name: "label".into(),
                    width: 3,
                    height: 2,
                }],
                properties: [("key".to_owned(), "value".to_owned())].into(),
            };
            let mut out = Writer::default();
            write_found(&mut out, &found);
            assert_eq!(read_found(&mut Reader(&out.0)).unwrap(), found);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_something_found_or_garbage(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = read_found(&mut Reader(&bytes));
        }
    }
}
