//! Image file directories: TIFF 6.0 section 2, and BigTIFF's wider fields.

use super::{Source, tags};
use crate::{Fault, Place, SlideError};
use std::collections::{BTreeMap, HashSet};

/// More directories than any slide has; a file with more is a trap or no slide.
const MAX_DIRECTORIES: usize = 4096;
/// TIFF's own limit is 65,535 fields; BigTIFF's is none.
const MAX_FIELDS: u64 = 4096;
/// Text and tables longer than this are not read.
const MAX_VALUE_BYTES: u64 = 16 << 20;

/// A field: its value is fetched when it is asked for.
#[derive(Clone, Copy, Debug)]
struct Field {
    kind: u16,
    count: u64,
    /// Where its value stands, inside the entry or elsewhere.
    at: u64,
}

/// A directory: the fields of one image.
#[derive(Clone, Debug)]
pub(crate) struct Directory {
    /// Its number in the order of reading; SubIFDs come behind the chain.
    pub(crate) number: usize,
    /// The directory whose SubIFD it is.
    pub(crate) parent: Option<usize>,
    offset: u64,
    fields: BTreeMap<u16, Field>,
}

/// A parsed file.
#[derive(Debug)]
pub(crate) struct Tiff {
    pub(crate) source: Source,
    little: bool,
    pub(crate) big: bool,
    pub(crate) directories: Vec<Directory>,
}

/// Whether a file that begins with `head` says that it is TIFF or BigTIFF.
pub(crate) fn is_tiff(head: &[u8]) -> bool {
    matches!(
        head,
        [b'I', b'I', 42 | 43, 0, ..] | [b'M', b'M', 0, 42 | 43, ..]
    )
}

impl Tiff {
    /// Reads all directories of `source`.
    pub(crate) fn parse(source: Source) -> Result<Self, SlideError> {
        let mut head = [0; 16];
        let have = source.len().min(16) as usize;
        source.read(0, &mut head[..have])?;
        if !is_tiff(&head[..have]) {
            let what = if source.len() == 0 {
                "is empty".to_string()
            } else {
                format!(
                    "is no TIFF file: it begins with {}, not with II*\\0, MM\\0* or their BigTIFF forms",
                    shown(&head[..have.min(8)])
                )
            };
            return Err(source.error(
                Fault::NotASlide,
                what,
                "the native reader takes Aperio SVS, tiled TIFF, BigTIFF and OME-TIFF",
            ));
        }
        let little = head[0] == b'I';
        let big = head[if little { 2 } else { 3 }] == 43;
        let mut tiff = Tiff {
            source,
            little,
            big,
            directories: Vec::new(),
        };
        if have < if big { 16 } else { 8 } {
            return Err(tiff.damaged(0, "ends inside its header"));
        }
        let first = if big {
            if tiff.u16(&head[4..6]) != 8 || tiff.u16(&head[6..8]) != 0 {
                return Err(tiff.damaged(4, "its BigTIFF header says that offsets are not 8 bytes"));
            }
            tiff.u64(&head[8..16])
        } else {
            tiff.u32(&head[4..8]) as u64
        };
        tiff.walk(first)?;
        Ok(tiff)
    }

    fn walk(&mut self, first: u64) -> Result<(), SlideError> {
        let mut seen = HashSet::new();
        let mut next = first;
        if next == 0 {
            return Err(self.damaged(4, "has no image file directory"));
        }
        while next != 0 {
            next = self.directory(next, None, &mut seen)?;
        }
        // One level of SubIFDs: OME-TIFF's pyramids stand there (OME-TIFF specification, "Sub-resolutions").
        for parent in 0..self.directories.len() {
            let subs = self
                .ints(
                    &self.directories[parent],
                    tags::SUB_IFDS,
                    MAX_DIRECTORIES as u64,
                )?
                .unwrap_or_default();
            for sub in subs {
                self.directory(sub, Some(parent), &mut seen)?;
            }
        }
        Ok(())
    }

    /// Reads the directory at `offset`; returns where the next one of the chain is, 0 at the end.
    fn directory(
        &mut self,
        offset: u64,
        parent: Option<usize>,
        seen: &mut HashSet<u64>,
    ) -> Result<u64, SlideError> {
        let number = self.directories.len();
        let fault = |what: &str| {
            self.source
                .error(Fault::Damaged, what, "copy or export the slide again")
                .at(Place {
                    ifd: Some(number),
                    offset: Some(offset),
                    ..Place::default()
                })
        };
        if !seen.insert(offset) {
            return Err(fault(
                "its image file directories form a loop: this one was read before",
            ));
        }
        if number >= MAX_DIRECTORIES {
            return Err(fault("it has more than 4096 image file directories"));
        }
        let (head, width, tail) = if self.big { (8, 20, 8) } else { (2, 12, 4) };
        let outside = || {
            fault(&format!(
                "an image file directory lies outside of the file, which ends at {}: the file is truncated or its header is damaged",
                self.source.len()
            ))
        };
        if !self.source.holds(offset, head) {
            return Err(outside());
        }
        let mut bytes = vec![0; head as usize];
        self.source.read(offset, &mut bytes)?;
        let count = if self.big {
            self.u64(&bytes)
        } else {
            self.u16(&bytes) as u64
        };
        if count == 0 || count > MAX_FIELDS {
            return Err(fault(&format!(
                "an image file directory says that it has {count} fields"
            )));
        }
        if !self.source.holds(offset + head, count * width + tail) {
            return Err(outside());
        }
        let mut bytes = vec![0; (count * width + tail) as usize];
        self.source.read(offset + head, &mut bytes)?;
        let mut fields = BTreeMap::new();
        for i in 0..count {
            let entry = &bytes[(i * width) as usize..((i + 1) * width) as usize];
            let (tag, kind) = (self.u16(&entry[0..2]), self.u16(&entry[2..4]));
            let (count, inside) = if self.big {
                (self.u64(&entry[4..12]), 8)
            } else {
                (self.u32(&entry[4..8]) as u64, 4)
            };
            let here = offset + head + i * width + (width - inside);
            let Some(size) = size_of(kind) else {
                // A field of a kind from the future is passed over (TIFF 6.0 section 2).
                continue;
            };
            let at = match count.checked_mul(size) {
                Some(bytes) if bytes <= inside => here,
                _ if self.big => self.u64(&entry[12..20]),
                _ => self.u32(&entry[8..12]) as u64,
            };
            fields.entry(tag).or_insert(Field { kind, count, at });
        }
        let next = &bytes[(count * width) as usize..];
        let next = if self.big {
            self.u64(next)
        } else {
            self.u32(next) as u64
        };
        self.directories.push(Directory {
            number,
            parent,
            offset,
            fields,
        });
        Ok(next)
    }

    /// The bytes of a field's value, at most `most`.
    fn value(
        &self,
        of: &Directory,
        tag: u16,
        field: Field,
        most: u64,
    ) -> Result<Vec<u8>, SlideError> {
        let bytes = size_of(field.kind)
            .and_then(|size| size.checked_mul(field.count))
            .unwrap_or(u64::MAX);
        let place = Place {
            ifd: Some(of.number),
            offset: Some(field.at),
            ..Place::default()
        };
        if !self.source.holds(field.at, bytes) {
            return Err(self
                .source
                .error(
                    Fault::Damaged,
                    format!(
                        "the value of tag {tag} lies outside of the file, which ends at {}: the file is truncated",
                        self.source.len()
                    ),
                    "copy or export the slide again",
                )
                .at(place));
        }
        if bytes > most {
            return Err(self
                .source
                .error(
                    Fault::TooLarge,
                    format!("tag {tag} has {bytes} bytes; at most {most} are read"),
                    "export the slide again",
                )
                .at(place));
        }
        let mut value = vec![0; bytes as usize];
        self.source.read(field.at, &mut value)?;
        Ok(value)
    }

    /// Unsigned integers of a field, at most `most` of them.
    pub(crate) fn ints(
        &self,
        of: &Directory,
        tag: u16,
        most: u64,
    ) -> Result<Option<Vec<u64>>, SlideError> {
        let Some(field) = of.fields.get(&tag).copied() else {
            return Ok(None);
        };
        let value = self.value(of, tag, field, most.saturating_mul(8))?;
        let ints = match field.kind {
            1 | 7 => value.iter().map(|byte| *byte as u64).collect(),
            3 => value.chunks_exact(2).map(|b| self.u16(b) as u64).collect(),
            4 | 13 => value.chunks_exact(4).map(|b| self.u32(b) as u64).collect(),
            16 | 18 => value.chunks_exact(8).map(|b| self.u64(b)).collect(),
            kind => {
                return Err(self
                    .source
                    .error(
                        Fault::Damaged,
                        format!("tag {tag} should hold integers, but its type is {kind}"),
                        "export the slide again",
                    )
                    .at(of.place()));
            }
        };
        Ok(Some(ints))
    }

    /// The first integer of a field.
    pub(crate) fn int(&self, of: &Directory, tag: u16) -> Result<Option<u64>, SlideError> {
        Ok(self
            .ints(of, tag, 64)?
            .and_then(|ints| ints.first().copied()))
    }

    /// Text of a field, up to its first NUL; bytes that are no UTF-8 are replaced.
    pub(crate) fn text(&self, of: &Directory, tag: u16) -> Result<Option<String>, SlideError> {
        Ok(self.bytes(of, tag)?.map(|bytes| {
            let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
            String::from_utf8_lossy(&bytes[..end]).into_owned()
        }))
    }

    /// Bytes of a field.
    pub(crate) fn bytes(&self, of: &Directory, tag: u16) -> Result<Option<Vec<u8>>, SlideError> {
        match of.fields.get(&tag).copied() {
            Some(field) => self.value(of, tag, field, MAX_VALUE_BYTES).map(Some),
            None => Ok(None),
        }
    }

    /// The first rational of a field, or what a writer put there instead; `None` when it is none or its denominator is 0.
    pub(crate) fn rational(&self, of: &Directory, tag: u16) -> Result<Option<f64>, SlideError> {
        let Some(field) = of.fields.get(&tag).copied() else {
            return Ok(None);
        };
        let value = self.value(of, tag, field, 1024)?;
        let number = match (field.kind, value.len()) {
            (5, 8..) => {
                let (n, d) = (self.u32(&value[..4]), self.u32(&value[4..8]));
                (d != 0).then(|| n as f64 / d as f64)
            }
            (11, 4..) => Some(f32::from_bits(self.u32(&value[..4])) as f64),
            (12, 8..) => Some(f64::from_bits(self.u64(&value[..8]))),
            _ => None,
        };
        Ok(number.filter(|number| number.is_finite()))
    }

    /// Length in bytes of a field's value, without reading it.
    pub(crate) fn value_bytes(&self, of: &Directory, tag: u16) -> Option<u64> {
        let field = of.fields.get(&tag)?;
        size_of(field.kind)?.checked_mul(field.count)
    }

    fn damaged(&self, offset: u64, what: &str) -> SlideError {
        self.source
            .error(Fault::Damaged, what, "copy or export the slide again")
            .at(Place {
                offset: Some(offset),
                ..Place::default()
            })
    }

    fn u16(&self, b: &[u8]) -> u16 {
        let mut a = [0; 2];
        a.copy_from_slice(&b[..2]);
        if self.little {
            u16::from_le_bytes(a)
        } else {
            u16::from_be_bytes(a)
        }
    }

    fn u32(&self, b: &[u8]) -> u32 {
        let mut a = [0; 4];
        a.copy_from_slice(&b[..4]);
        if self.little {
            u32::from_le_bytes(a)
        } else {
            u32::from_be_bytes(a)
        }
    }

    fn u64(&self, b: &[u8]) -> u64 {
        let mut a = [0; 8];
        a.copy_from_slice(&b[..8]);
        if self.little {
            u64::from_le_bytes(a)
        } else {
            u64::from_be_bytes(a)
        }
    }
}

impl Directory {
    pub(crate) fn place(&self) -> Place {
        Place {
            ifd: Some(self.number),
            offset: Some(self.offset),
            ..Place::default()
        }
    }

    pub(crate) fn has(&self, tag: u16) -> bool {
        self.fields.contains_key(&tag)
    }
}

/// Bytes of one value of a field's kind.
fn size_of(kind: u16) -> Option<u64> {
    Some(match kind {
        1 | 2 | 6 | 7 => 1,
        3 | 8 => 2,
        4 | 9 | 11 | 13 => 4,
        5 | 10 | 12 | 16 | 17 | 18 => 8,
        _ => return None,
    })
}

/// The first bytes of a file, for people.
fn shown(bytes: &[u8]) -> String {
    if bytes.iter().all(|b| (32..127).contains(b)) {
        format!("the text \"{}\"", String::from_utf8_lossy(bytes))
    } else {
        let hex: Vec<String> = bytes.iter().map(|b| format!("{b:02x}")).collect();
        format!("the bytes {}", hex.join(" "))
    }
}
