//! Against a reader whose table lives here: 40 x 30 px, two levels, of which a place is damaged and spoils the handle.
#![allow(clippy::unwrap_used, clippy::too_many_arguments)]

use super::*;
use crate::manifest;
use crate::openers::PluginReader;
use std::ffi::CStr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use weir_abi::host::Host;
use weir_abi::status::Status;
use weir_slide::{OpenOptions, Opener, Openers, Region, open_and_tell};

const ID: &CStr = c"probe";
static OPEN: AtomicUsize = AtomicUsize::new(0);
/// Tests that count open handles take turns.
static TURN: std::sync::Mutex<()> = std::sync::Mutex::new(());

struct Probe {
    spoilt: AtomicBool,
    lie: bool,
    levels: Vec<Level>,
    pictures: Vec<Picture>,
    properties: Vec<Property>,
    facts: Option<Facts>,
}

fn fail(host: *const Host, call: *mut weir_abi::Call, what: &str) {
    let error = status::Error {
        message: Str::new(what),
        help: Str::new("take another"),
        ..status::Error::default()
    };
    // SAFETY: the host's table and an open call.
    unsafe { ((*host).fail.unwrap())(call, &error) };
}

unsafe extern "C" fn sniff(path: Str, head: *const u8, len: usize) -> i32 {
    // SAFETY: the host's texts.
    let (path, head) = unsafe { (path.bytes(), std::slice::from_raw_parts(head, len)) };
    if path.ends_with(b".probe") && head.starts_with(b"PROBE") {
        200
    } else {
        0
    }
}

unsafe extern "C" fn open(
    host: *const Host,
    call: *mut weir_abi::Call,
    path: Str,
    out: *mut *mut c_void,
) -> Status {
    // SAFETY: the host's text.
    let path = String::from_utf8_lossy(unsafe { path.bytes() }).into_owned();
    assert!(Path::new(&path).is_absolute());
    let text = std::fs::read_to_string(&path).unwrap();
    if text.contains("foreign") {
        fail(host, call, "not mine after all");
        return status::UNSUPPORTED;
    }
    if text.contains("broken") {
        fail(host, call, "it is torn");
        return status::FAIL;
    }
    let sizes = |word: &str, usual: (i64, i64)| match text.split_once(word) {
        Some((_, size)) => {
            let mut sides = size.split(' ').map(|side| side.parse().unwrap());
            (sides.next().unwrap(), sides.next().unwrap())
        }
        None => usual,
    };
    let tile = sizes("tile ", (16, 16));
    let level = |width, height, downsample| Level {
        width,
        height,
        downsample,
        tile_width: tile.0,
        tile_height: tile.1,
    };
    let label = sizes("label ", (3, 2));
    let probe = Box::new(Probe {
        spoilt: AtomicBool::new(false),
        lie: text.contains("lie"),
        levels: vec![level(40, 30, 1.0), level(20, 15, 2.0)],
        pictures: vec![Picture {
            name: Str::new("label"),
            width: label.0,
            height: label.1,
        }],
        properties: vec![Property {
            key: Str::new("probe.key"),
            value: Str::new("value"),
        }],
        facts: None,
    });
    OPEN.fetch_add(1, Ordering::SeqCst);
    // SAFETY: a place for the handle.
    unsafe { *out = Box::into_raw(probe).cast() };
    status::OK
}

unsafe extern "C" fn info(
    handle: *mut c_void,
    _: *mut weir_abi::Call,
    out: *mut *const Facts,
) -> Status {
    // SAFETY: a handle that open() made; nobody else has it yet.
    let probe = unsafe { &mut *handle.cast::<Probe>() };
    let facts = probe.facts.insert(Facts {
        struct_size: size_of::<Facts>() as u32,
        mpp_origin: MPP_VENDOR,
        format: Str::new("probe-1"),
        vendor: Str::new("nobody"),
        mpp_x: 0.5,
        mpp_y: 0.5,
        levels: if probe.lie {
            std::ptr::null()
        } else {
            probe.levels.as_ptr()
        },
        pictures: probe.pictures.as_ptr(),
        properties: probe.properties.as_ptr(),
        n_levels: 2,
        n_pictures: 1,
        n_properties: 1,
        reserved: 0,
    });
    // SAFETY: a place for a pointer.
    unsafe { *out = facts };
    status::OK
}

unsafe extern "C" fn read_region(
    handle: *mut c_void,
    call: *mut weir_abi::Call,
    level: u32,
    x: i64,
    y: i64,
    width: u32,
    height: u32,
    into: *mut u8,
    pitch: usize,
) -> Status {
    // SAFETY: a handle that open() made.
    let probe = unsafe { &*handle.cast::<Probe>() };
    let bad = level == 0
        && (x..x + i64::from(width)).contains(&17)
        && (y..y + i64::from(height)).contains(&5);
    if bad || probe.spoilt.load(Ordering::SeqCst) {
        probe.spoilt.store(true, Ordering::SeqCst);
        fail(&HOST, call, "a hole");
        return status::FAIL;
    }
    for row in 0..height as usize {
        for column in 0..width as usize {
            let value = (x as usize + column) * 3 + (y as usize + row) * 5 + level as usize * 7;
            // SAFETY: the host's rows.
            unsafe {
                into.add(row * pitch + column * 3)
                    .write_bytes(value as u8, 3)
            };
        }
    }
    status::OK
}

unsafe extern "C" fn picture(
    _: *mut c_void,
    _: *mut weir_abi::Call,
    i: u32,
    into: *mut u8,
    pitch: usize,
) -> Status {
    assert_eq!((i, pitch), (0, 9));
    // SAFETY: the host's 3 x 2 px.
    unsafe { into.write_bytes(9, 18) };
    status::OK
}

unsafe extern "C" fn close(handle: *mut c_void) {
    OPEN.fetch_sub(1, Ordering::SeqCst);
    // SAFETY: a handle that open() made, for the last time.
    drop(unsafe { Box::from_raw(handle.cast::<Probe>()) });
}

fn reader(flags: u32) -> Openers {
    let table: &'static Reader = Box::leak(Box::new(Reader {
        struct_size: size_of::<Reader>() as u32,
        flags,
        id: ID.as_ptr(),
        sniff: Some(sniff),
        open: Some(open),
        info: Some(info),
        read_region: Some(read_region),
        picture: Some(picture),
        close: Some(close),
    }));
    let about = manifest::Reader {
        id: "probe".into(),
        summary: String::new(),
        extensions: vec!["probe".into()],
        cache: None,
    };
    let who = Arc::new(Who::plugin("probe", &semver::Version::new(1, 2, 3)));
    Openers::new([Arc::new(PluginReader::new(table, &about, who)) as Arc<dyn Opener>])
}

fn file(folder: &tempfile::TempDir, text: &str) -> PathBuf {
    let path = folder.path().join("slide.probe");
    std::fs::write(&path, text).unwrap();
    path
}

fn options(flags: u32) -> OpenOptions {
    OpenOptions {
        openers: reader(flags),
        ..OpenOptions::default()
    }
}

#[test]
fn a_plugins_levels_become_a_whole_reader_and_every_handle_is_closed() {
    let _turn = TURN.lock().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = file(&folder, "PROBE");
    for flags in [0, PARALLEL, SPOILS, PARALLEL | SPOILS] {
        let (slide, choice) = open_and_tell(&path, &options(flags)).unwrap();
        assert_eq!(
            (choice.reader.as_str(), choice.asked[0].score),
            ("probe", 100)
        );
        let facts = slide.facts();
        assert_eq!(
            (facts.reader.as_str(), facts.vendor.as_str()),
            ("probe/probe-1", "nobody")
        );
        assert_eq!(
            (facts.width(), facts.height(), facts.levels.len()),
            (40, 30, 2)
        );
        assert_eq!(facts.require_mpp().unwrap().0.0, 0.5);
        assert_eq!(facts.properties["probe.key"], "value");
        let mut pixels = vec![0; 4 * 4 * 3];
        let region = |x: f64, y: f64, side: f64| Region {
            x,
            y,
            w: side,
            h: side,
        };
        slide
            .read(region(2.0, 3.0, 4.0), 0, 4, 4, &mut pixels)
            .unwrap();
        assert_eq!((pixels[0], pixels[4 * 3]), (2 * 3 + 3 * 5, 2 * 3 + 4 * 5));
        // Level 1, and white outside of it.
        slide
            .read(region(36.0, 26.0, 8.0), 0, 4, 4, &mut pixels)
            .unwrap();
        assert_eq!(
            (pixels[0], pixels[3 * 3]),
            ((18 * 3 + 13 * 5 + 7) as u8, 255)
        );
        assert_eq!(slide.associated("label").unwrap().pixels, [9; 18]);
        drop(slide);
        assert_eq!(OPEN.load(Ordering::SeqCst), 0, "flags {flags}");
    }
}

#[test]
fn damage_spoils_no_read_but_its_own() {
    let _turn = TURN.lock().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = file(&folder, "PROBE");
    for flags in [SPOILS, PARALLEL | SPOILS] {
        let (slide, _) = open_and_tell(&path, &options(flags)).unwrap();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let slide = &slide;
                scope.spawn(move || {
                    let mut pixels = vec![0; 2 * 2 * 3];
                    for k in 0..200 {
                        let (x, y) = ((k + thread) % 38, (k * 3 + thread) % 28);
                        let bad = (x..x + 2).contains(&17) && (y..y + 2).contains(&5);
                        let region = Region {
                            x: f64::from(x),
                            y: f64::from(y),
                            w: 2.0,
                            h: 2.0,
                        };
                        let read = slide.read(region, 0, 2, 2, &mut pixels);
                        assert_eq!(read.is_err(), bad, "({x}, {y})");
                        if let Err(error) = read {
                            assert_eq!(
                                (error.fault, error.what.as_str()),
                                (Fault::Damaged, "a hole")
                            );
                            assert_eq!(error.help, "take another");
                        }
                    }
                });
            }
        });
        let picture = slide.thumbnail(40).unwrap();
        assert_eq!(picture.unread.len(), 1);
        drop(slide);
        assert_eq!(OPEN.load(Ordering::SeqCst), 0);
    }
}

#[test]
fn what_a_plugin_refuses_and_what_it_gets_wrong_are_told_apart() {
    let _turn = TURN.lock().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let refused = |text: &str| match open_and_tell(&file(&folder, text), &options(PARALLEL)) {
        Err(error) => error,
        Ok(_) => panic!("{text} opened"),
    };
    let foreign = refused("PROBE foreign");
    assert!(
        foreign
            .what
            .contains("probe declined it: not mine after all; the native reader declined it"),
        "{foreign}"
    );
    assert_eq!(
        (foreign.fault, foreign.help.as_str()),
        (Fault::NotASlide, "take another")
    );
    let broken = refused("PROBE broken");
    assert_eq!(broken.fault, Fault::Damaged);
    assert!(
        broken
            .what
            .starts_with("it is torn (read by probe; the native reader declined it: is no TIFF"),
        "{broken}"
    );
    let lie = refused("PROBE lie");
    assert!(lie.what.contains("plugin `probe` 1.2.3 broke the contract [E0520]: it says that a slide has 2 levels and gives none"), "{lie}");
    let other = refused("hello");
    assert!(other.what.ends_with("; probe does not know it"), "{other}");
    assert_eq!(OPEN.load(Ordering::SeqCst), 0);
}

/// A file can say any size, and an honest reader hands that on: three times the product must not come round to a few bytes.
#[test]
fn sizes_whose_bytes_no_number_holds_are_refused_before_anything_is_read() {
    let _turn = TURN.lock().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (width, height) = (2_480_019_350_u64, 2_479_381_740_u64);
    let round = width.wrapping_mul(height).wrapping_mul(3);
    assert!(round < 64 << 20, "{round}");
    let path = file(&folder, &format!("PROBE label {width} {height}"));
    let (slide, _) = open_and_tell(&path, &options(PARALLEL)).unwrap();
    let refused = slide.associated("label").err().unwrap();
    assert_eq!(refused.fault, Fault::TooLarge, "{refused}");
    drop(slide);
    let path = file(&folder, &format!("PROBE tile {width} {height}"));
    let refused = open_and_tell(&path, &options(PARALLEL)).err().unwrap();
    assert_eq!(refused.fault, Fault::Damaged, "{refused}");
    assert_eq!(OPEN.load(Ordering::SeqCst), 0);
}
