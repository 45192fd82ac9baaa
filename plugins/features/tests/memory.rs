//! A large slide is written in one copy and read in blocks.
#![allow(clippy::unwrap_used, missing_docs)]

use std::alloc::{GlobalAlloc, Layout as Size, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use weir_features::file::FeatureFile;
use weir_features::layout::Layout;
use weir_features::output::{About, Dtype, write};

struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

// SAFETY: the system's own, counted.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, size: Size) -> *mut u8 {
        let now = NOW.fetch_add(size.size(), Relaxed) + size.size();
        MOST.fetch_max(now, Relaxed);
        // SAFETY: the caller's.
        unsafe { System.alloc(size) }
    }
    unsafe fn dealloc(&self, at: *mut u8, size: Size) {
        NOW.fetch_sub(size.size(), Relaxed);
        // SAFETY: the caller's.
        unsafe { System.dealloc(at, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The most bytes that `body` had at once.
fn most<R>(body: impl FnOnce() -> R) -> (usize, R) {
    let before = NOW.load(Relaxed);
    MOST.store(before, Relaxed);
    let result = body();
    (MOST.load(Relaxed) - before, result)
}

#[test]
fn a_slide_of_20000_rows_of_1536_numbers_is_written_in_one_copy_and_read_in_blocks() {
    const MIB: usize = 1 << 20;
    let (rows, width) = (20_000, 1536);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("large.h5");
    let corners: Vec<(i64, i64)> = (0..rows).map(|i| (i % 200 * 224, i / 200 * 224)).collect();
    let about = About {
        layout: Layout::Trident,
        dtype: Dtype::F32,
        width,
        name: "large".into(),
        encoder: "made-up".into(),
        folder: "features".into(),
        size: (50_000, 50_000),
        mpp: Some(0.5),
        footprint: 224.0,
        tile_px: 224,
    };
    let mut bytes = Vec::with_capacity(rows as usize * width * 4);
    let numbers: Vec<f32> = (0..width).map(|i| i as f32).collect();
    for _ in 0..rows {
        Dtype::F32.append(&numbers, &mut bytes).unwrap();
    }
    // The rows themselves, 117 MiB, are counted before.
    let (writing, ()) = most(|| write(&path, &about, &corners, bytes).unwrap());
    assert!(writing < 8 * MIB, "writing took {} MiB more", writing / MIB);

    let (reading, ()) = most(|| {
        let file = FeatureFile::open(&path, None).unwrap();
        let mut row = vec![0.0; width];
        for at in 0..file.rows {
            file.row(at, &mut row).unwrap();
            assert_eq!(row, numbers);
        }
    });
    assert!(reading < 8 * MIB, "reading took {} MiB", reading / MIB);
    println!(
        "written with {} KiB more, read with {} KiB",
        writing >> 10,
        reading >> 10
    );
}
