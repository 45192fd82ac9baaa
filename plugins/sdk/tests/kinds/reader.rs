//! A slide reader.

use std::path::Path;
use weir_plugin::harness;
use weir_plugin::{Call, Error, Facts, Level, Picture, Reader, Region, Result};

/// Files of one grey.
#[derive(weir_plugin::Reader)]
#[reader(id = "grey", extensions = ["grey"], parallel)]
pub struct Grey {
    value: u8,
    size: u32,
}

impl Reader for Grey {
    fn sniff(path: &Path, head: &[u8]) -> u8 {
        let named = path.extension().is_some_and(|it| it == "grey");
        if named && head.len() == 1 { 100 } else { 0 }
    }

    fn open(path: &Path, _: &Call) -> Result<Grey> {
        let value = *std::fs::read(path)?
            .first()
            .ok_or_else(|| Error::new("the file is empty"))?;
        Ok(Grey { value, size: 10 })
    }

    fn facts(&self, _: &Call) -> Result<Facts> {
        let size = i64::from(self.size);
        Ok(Facts {
            format: "grey".into(),
            levels: vec![Level {
                width: size,
                height: size,
                downsample: 1.0,
                ..Level::default()
            }],
            pictures: vec![Picture {
                name: "label".into(),
                width: 2,
                height: 1,
            }],
            properties: vec![("b".into(), "2".into()), ("a".into(), "1".into())],
            ..Facts::default()
        })
    }

    fn read_region(&self, _: u32, x: i64, y: i64, into: &mut Region, _: &Call) -> Result<()> {
        into.white();
        let size = i64::from(self.size);
        for row in 0..into.height() {
            let inside = |at: i64| (0..size).contains(&at);
            let columns = into.width();
            let pixels = into.row_mut(row);
            for column in
                (0..columns).filter(|it| inside(x + i64::from(*it)) && inside(y + i64::from(row)))
            {
                pixels[column as usize * 3..][..3].fill(self.value);
            }
        }
        Ok(())
    }

    fn picture(&self, _: u32, into: &mut Region, _: &Call) -> Result<()> {
        into.row_mut(0).fill(9);
        Ok(())
    }
}

#[test]
fn a_reader_gives_its_facts_exact_regions_and_pictures() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("one.grey");
    std::fs::write(&path, [77]).unwrap();
    let reader = harness::reader::<Grey>();
    assert_eq!(reader.sniff(&path).unwrap(), 100);
    let slide = reader.open(&path).unwrap();
    let facts = slide.facts().unwrap();
    assert_eq!(
        facts.properties[0],
        ("a".into(), "1".into()),
        "sorted by key"
    );
    assert_eq!(facts.levels[0].width, 10);
    let pixels = slide.region(0, -1, 9, 2, 2).unwrap();
    assert_eq!(
        pixels,
        [255, 255, 255, 77, 77, 77, 255, 255, 255, 255, 255, 255]
    );
    assert_eq!(slide.picture(0).unwrap(), [9; 6]);
    std::fs::write(&path, []).unwrap();
    assert_eq!(
        reader.open(&path).err().unwrap().message(),
        "the file is empty"
    );
}
