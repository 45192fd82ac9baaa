//! Every offset, size and constant of the ABI: the same in C, in Rust and in the snapshot of the released version.
#![allow(clippy::unwrap_used)]

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use weir_abi::*;

/// A struct: its name in C, its size and alignment, and of each member name in C, offset and size.
struct Struct {
    name: &'static str,
    size: usize,
    align: usize,
    members: Vec<(&'static str, usize, usize)>,
}

/// `Type as weir_name { members }`; a member whose name in C is another is written `member as name`.
macro_rules! structs {
    ($($type:ty as $name:ident { $($member:ident $(as $c:ident)?),* $(,)? })*) => {
        vec![$(Struct {
            name: stringify!($name),
            size: size_of::<$type>(),
            align: align_of::<$type>(),
            members: vec![$((
                structs!(@name $member $($c)?),
                std::mem::offset_of!($type, $member),
                size_of_member(|it: &$type| &raw const it.$member),
            )),*],
        }),*]
    };
    (@name $member:ident) => { stringify!($member) };
    (@name $member:ident $c:ident) => { stringify!($c) };
}

fn structs() -> Vec<Struct> {
    structs! {
        Str as weir_str { ptr, len }
        status::Error as weir_error { message, param, help }
        row::Key as weir_key { slide, tile, rev, source }
        row::Row as weir_row { key, x, y, footprint, mpp, slide, reserved }
        row::Slide as weir_slide {
            struct_size, reserved, number, seed, id, path, patient, label, split, width, height, mpp_x, mpp_y, tiles,
            tile_footprint, tile_mpp, tile_px, tile_reserved
        }
        column::Device as weir_device { kind as type, id }
        column::Dtype as weir_dtype { code, bits, lanes }
        column::Column as weir_column {
            name, rows, shape, strides, lengths, pitch, device, dtype, ndim, flags, reserved
        }
        column::Batch as weir_batch { struct_size, n_rows, n_columns, n_slides, rows, columns, slides }
        value::Value as weir_value { kind, n, i, f, s, items }
        host::Host as weir_host {
            struct_size, abi_minor, version, extension, log, fail, cancelled, batch_new, batch_for, batch_edit, batch_retain,
            batch_release, emit, pass, table, skip, fail_row, complete, wake, folder
        }
        host::CudaV1 as weir_cuda_v1 { struct_size, device, stream }
        host::MetricsV1 as weir_metrics_v1 { struct_size, reserved, count }
        stage::Step as weir_step { struct_size, kind, x, y, width, height }
        stage::Stage as weir_stage {
            struct_size, flags, id, create, destroy, resolve, cancel, process, remove, complete_slide, close_slide, finish,
            slide, open, next, read, close
        }
        reader::Level as weir_level { width, height, downsample, tile_width, tile_height }
        reader::Picture as weir_picture { name, width, height }
        reader::Property as weir_property { key, value }
        reader::Facts as weir_facts {
            struct_size, mpp_origin, format, vendor, mpp_x, mpp_y, levels, pictures, properties, n_levels, n_pictures,
            n_properties, reserved
        }
        reader::Reader as weir_reader { struct_size, flags, id, sniff, open, info, read_region, picture, close }
        plugin::Plugin as weir_plugin { struct_size, abi_minor, manifest, stages, readers, n_stages, n_readers, extension }
        plugin::DescribeV1 as weir_describe_v1 { struct_size, reserved, describe }
    }
}

macro_rules! constants {
    ($($value:path as $name:ident),* $(,)?) => {
        vec![$((stringify!($name), $value as i128)),*]
    };
}

fn constants() -> Vec<(&'static str, i128)> {
    constants! {
        MAJOR as WEIR_ABI_MAJOR, MINOR as WEIR_ABI_MINOR,
        status::OK as WEIR_OK, status::PENDING as WEIR_PENDING, status::IDLE as WEIR_IDLE, status::END as WEIR_END,
        status::FAIL as WEIR_E_FAIL, status::RETRY as WEIR_E_RETRY, status::PARAM as WEIR_E_PARAM,
        status::MEMORY as WEIR_E_MEMORY, status::CANCELLED as WEIR_E_CANCELLED, status::PANIC as WEIR_E_PANIC,
        status::UNSUPPORTED as WEIR_E_UNSUPPORTED, status::USE as WEIR_E_USE,
        row::TILE_SLIDE as WEIR_TILE_SLIDE, column::WRITABLE as WEIR_COLUMN_WRITABLE,
        value::UNSET as WEIR_UNSET, value::BOOL as WEIR_BOOL, value::INT as WEIR_INT, value::FLOAT as WEIR_FLOAT,
        value::STRING as WEIR_STRING, value::LIST as WEIR_LIST,
        host::LOG_ERROR as WEIR_LOG_ERROR, host::LOG_WARN as WEIR_LOG_WARN, host::LOG_INFO as WEIR_LOG_INFO,
        host::LOG_DEBUG as WEIR_LOG_DEBUG,
        stage::PARALLEL as WEIR_STAGE_PARALLEL, stage::DETERMINISTIC as WEIR_STAGE_DETERMINISTIC,
        stage::COMPLETE as WEIR_COMPLETE, stage::INCOMPLETE as WEIR_INCOMPLETE, stage::ABORTED as WEIR_ABORTED,
        stage::PROVISIONAL as WEIR_PROVISIONAL,
        stage::STEP_TILE as WEIR_STEP_TILE, stage::STEP_GONE as WEIR_STEP_GONE, stage::STEP_FAIL as WEIR_STEP_FAIL,
        stage::STEP_CLOSE as WEIR_STEP_CLOSE,
        reader::MPP_UNKNOWN as WEIR_MPP_UNKNOWN, reader::MPP_VENDOR as WEIR_MPP_VENDOR,
        reader::MPP_RESOLUTION as WEIR_MPP_RESOLUTION, reader::MPP_OBJECTIVE as WEIR_MPP_OBJECTIVE,
        reader::PARALLEL as WEIR_READER_PARALLEL, reader::SPOILS as WEIR_READER_SPOILS,
    }
}

fn of_rust() -> String {
    let mut text = String::new();
    for it in structs() {
        writeln!(text, "{} {} {}", it.name, it.size, it.align).unwrap();
        for (member, offset, size) in it.members {
            writeln!(text, "  {member} {offset} {size}").unwrap();
        }
    }
    for (name, value) in constants() {
        writeln!(text, "{name} {value}").unwrap();
    }
    text
}

/// What a C compiler says of the names of a listing, with the header in that folder.
fn of_c(listing: &str, header: &Path, compiler: &str, standard: &str, extension: &str) -> String {
    let mut lines = String::new();
    let mut of = "";
    for line in listing.lines() {
        let name = line.split_whitespace().next().unwrap();
        let line = match (line.starts_with(' '), line.split_whitespace().count()) {
            (true, _) => format!(
                r#"printf("  {name} %zu %zu\n", offsetof({of}, {name}), sizeof((({of} *)0)->{name}));"#
            ),
            (false, 3) => {
                of = name;
                format!(r#"printf("{name} %zu %zu\n", sizeof({name}), ALIGN({name}));"#)
            }
            _ if name == "WEIR_TILE_SLIDE" => {
                format!(r#"printf("{name} %llu\n", (unsigned long long){name});"#)
            }
            _ => format!(r#"printf("{name} %lld\n", (long long){name});"#),
        };
        writeln!(lines, "{line}").unwrap();
    }
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("layout").with_extension(extension);
    let program = folder.path().join("layout");
    let text = format!(
        "#include <stdio.h>\n#include \"weir_plugin.h\"\n#ifdef __cplusplus\n#define ALIGN(t) alignof(t)\n#else\n\
         #define ALIGN(t) _Alignof(t)\n#endif\nint main(void) {{\n{lines}return 0;\n}}\n"
    );
    std::fs::write(&source, text).unwrap();
    let built = Command::new(compiler)
        .arg(format!("-std={standard}"))
        .args(["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-I"])
        .arg(header)
        .arg("-o")
        .args([&program, &source])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&built.stderr).into_owned();
    assert!(
        built.status.success(),
        "{compiler} -std={standard} refused the header: {said}"
    );
    String::from_utf8(Command::new(program).output().unwrap().stdout).unwrap()
}

/// The folder of the crate, where the header is.
fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn c_cpp_and_rust_agree_on_every_offset_size_and_constant() {
    let rust = of_rust();
    assert_eq!(of_c(&rust, here(), "gcc", "c11", "c"), rust);
    assert_eq!(of_c(&rust, here(), "g++", "c++17", "cpp"), rust);
}

/// Lines of a listing, those of members with the name of their struct before them.
fn named(listing: &str) -> Vec<(String, String)> {
    let mut of = "";
    let lines = listing.lines().map(|line| {
        let (name, rest) = line.trim().split_once(' ').unwrap();
        if !line.starts_with(' ') {
            of = name;
            return (name.to_owned(), rest.to_owned());
        }
        (format!("{of}.{name}"), rest.to_owned())
    });
    lines.collect()
}

#[test]
fn every_name_of_the_released_header_1_0_is_where_it_was() {
    let released = here().join("../../tests/abi/v1.0");
    let then = std::fs::read_to_string(released.join("layout.txt")).unwrap();
    assert_eq!(
        of_c(&then, &released, "gcc", "c11", "c"),
        then,
        "the released header changed"
    );
    let now: std::collections::HashMap<String, String> = named(&of_rust()).into_iter().collect();
    let then = named(&then);
    let grows = |name: &str| {
        let size = format!("{name}.struct_size");
        then.iter().any(|(known, _)| *known == size)
    };
    for (name, was) in &then {
        let is = now.get(name);
        assert!(is.is_some(), "{name} is gone");
        if !grows(name) && name != "WEIR_ABI_MINOR" {
            assert_eq!(is, Some(was), "{name}");
        }
    }
}

#[test]
fn the_layout_is_that_of_the_snapshot() {
    insta::assert_snapshot!("abi", of_rust());
}

/// The header without its comments.
fn without_comments() -> String {
    let mut parts = HEADER.split("/*");
    let mut text = parts.next().unwrap().to_owned();
    for part in parts {
        text.push_str(part.split_once("*/").unwrap().1);
    }
    text
}

/// The name that a declarator declares: what follows `(*` of a function's, else the last word.
fn declared(declarator: &str) -> &str {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    match declarator.split_once("(*") {
        Some((_, function)) => function.split(|c| !is_name(c)).next().unwrap(),
        None => declarator.trim().rsplit(|c| !is_name(c)).next().unwrap(),
    }
}

/// Every struct of the header: its name, and its members in order.
fn structs_of_the_header() -> Vec<(String, Vec<String>)> {
    let text = without_comments();
    let mut all = Vec::new();
    for typedef in text.split("typedef struct").skip(1) {
        // One that is only declared has no body.
        let Some((_, body)) = typedef
            .split_once('{')
            .filter(|(tag, _)| !tag.contains(';'))
        else {
            continue;
        };
        let (body, behind) = body.split_once('}').unwrap();
        let members = body.split(';').filter(|it| !it.trim().is_empty());
        let members = members.flat_map(|member| match member.contains("(*") {
            true => vec![declared(member).to_owned()],
            false => member
                .split(',')
                .map(|it| declared(it).to_owned())
                .collect(),
        });
        let name = behind.split(';').next().unwrap().trim().to_owned();
        all.push((name, members.collect()));
    }
    all
}

#[test]
fn every_member_of_the_header_is_here_in_its_order() {
    let of_c = structs_of_the_header();
    let here: std::collections::BTreeMap<&str, Vec<&str>> = structs()
        .iter()
        .map(|it| (it.name, it.members.iter().map(|(name, ..)| *name).collect()))
        .collect();
    assert_eq!(of_c.len(), here.len(), "{of_c:?}");
    for (name, members) in &of_c {
        assert_eq!(
            here.get(name.as_str()),
            Some(&members.iter().map(String::as_str).collect()),
            "{name}"
        );
    }
}

#[test]
fn every_constant_of_the_header_is_here() {
    let known: Vec<&str> = constants().iter().map(|(name, _)| *name).collect();
    for line in HEADER.lines() {
        let Some(rest) = line.strip_prefix("#define WEIR_") else {
            continue;
        };
        let name = rest.split([' ', '(']).next().unwrap();
        let is_number =
            !rest[name.len()..].starts_with('(') && !rest[name.len()..].trim().is_empty();
        if is_number && name != "EXPORT" {
            assert!(
                known.contains(&format!("WEIR_{name}").as_str()),
                "WEIR_{name} has no constant in Rust"
            );
        }
    }
}

#[test]
fn what_a_shorter_struct_of_the_other_side_lacks_is_not_there() {
    let mut host: host::Host = unsafe_zeroed_host();
    host.struct_size = std::mem::offset_of!(host::Host, wake) as u32;
    // SAFETY: `host` is a whole struct.
    unsafe {
        assert!(has!(host::Host, &raw const host, complete));
        assert!(!has!(host::Host, &raw const host, wake));
        assert!(!has!(host::Host, &raw const host, folder));
    }
}

fn unsafe_zeroed_host() -> host::Host {
    // SAFETY: null pointers and absent functions are values of every member.
    unsafe { std::mem::zeroed() }
}

/// What was released stays: later versions add to it, and are held against it by the plugin that lies beside it.
#[test]
fn the_header_is_the_released_one_as_long_as_nothing_was_added() {
    let released = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/abi/v1.0/weir_plugin.h");
    let released = std::fs::read_to_string(released).unwrap();
    if MINOR == 0 {
        let mut lines = released.lines().zip(HEADER.lines());
        let other = lines.find(|(released, live)| released != live);
        assert_eq!(other, None, "the first line that differs");
        assert_eq!(released.len(), HEADER.len());
    }
}

#[test]
fn the_header_stands_alone() {
    assert!(
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("weir_plugin.h")
            .is_file()
    );
    let includes: Vec<&str> = HEADER
        .lines()
        .filter(|line| line.starts_with("#include"))
        .collect();
    assert_eq!(includes, ["#include <stddef.h>", "#include <stdint.h>"]);
}

/// What was released is these bytes, comments and all: a later version has a folder of its own.
#[test]
fn what_was_released_as_1_0_is_what_it_was() {
    const RELEASED: &[(&str, &str)] = &[
        (
            "5900af789ceae18c63d19bb13006e07319341d973a1370e05193824a5b14c300",
            "kinds.c",
        ),
        (
            "009632a015c343f2a7bc67c48adf80ce68f993cc5208dcf28484f6255c3e0df6",
            "more.c",
        ),
        (
            "fd944123484e25945b69228bf69a83716aa4f9e83ca728a05ce2445680f62992",
            "weir_plugin.h",
        ),
    ];
    let folder = here().join("../../tests/abi/v1.0");
    for (sum, file) in RELEASED {
        let said = Command::new("sha256sum")
            .arg(folder.join(file))
            .output()
            .unwrap();
        let said = String::from_utf8(said.stdout).unwrap();
        assert_eq!(said.split(' ').next(), Some(*sum), "tests/abi/v1.0/{file}");
    }
}
