//! `weir plugin new` and `weir plugin check`, as a plugin's author meets them.

use crate::program::{command, root, said};
use serde_json::Value;

#[test]
fn what_plugin_new_writes_in_c_builds_and_passes_plugin_check() {
    let folder = tempfile::tempdir().unwrap();
    let project = folder.path().join("dark");
    let weir = |arguments: &[&str]| said(command(arguments));
    let new = ["plugin", "new", "dark", "--lang", "c", "--folder"];
    weir(&[&new[..], &[project.to_str().unwrap()]].concat()).exits(0);
    let made = std::process::Command::new("make")
        .env_remove("MAKEFLAGS")
        .env_remove("MFLAGS")
        .arg("-C")
        .arg(&project)
        .output()
        .unwrap();
    let err = String::from_utf8_lossy(&made.stderr);
    assert!(made.status.success(), "{err}");
    let library = project.join("libdark.so");
    let checked = weir(&["plugin", "check", library.to_str().unwrap()]).exits(0);
    assert!(checked.out.contains(" 0 failed,"), "{}", checked.out);
}

/// The tests themselves are held to plugins that break their rules beside the host; here is what a user sees of them.
#[test]
fn check_names_each_test_how_it_ended_and_what_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let library = folder.path().join("libbad.so");
    let built = std::process::Command::new("gcc")
        .args(["-std=gnu11", "-O1", "-shared", "-fPIC", "-pthread", "-I"])
        .args([root().join("plugins/abi"), "-o".into(), library.clone()])
        .arg(root().join("plugins/host/tests/check/bad.c"))
        .status()
        .unwrap();
    assert!(built.success());
    let glass = folder.path().join("a.glass");
    let mut bytes = b"BADGLASS".to_vec();
    bytes.extend([64, 0, 0, 0, 48, 0, 0, 0]);
    bytes.extend([9; 64 * 48]);
    std::fs::write(&glass, bytes).unwrap();
    let check = |sin: &str, arguments: &[&str]| {
        let mut weir = command(["plugin", "check", library.to_str().unwrap()]);
        weir.args(arguments)
            .args(["--seed", "5"])
            .env("WEIR_BAD", sin);
        said(weir)
    };
    let good = check("", &["--only", "bad.map", "--only", "bad.tiles"]).exits(0);
    for part in [
        "ok",
        "bad.map: no-overrun",
        "bad.tiles: steps-in-order",
        "skipped",
        "it leaves no call pending",
        " 0 failed,",
        "; seed 5",
    ] {
        assert!(good.out.contains(part), "{part} in\n{}", good.out);
    }
    let without = check("", &["--only", "bad: "]).exits(0).out;
    assert!(
        without.contains("give --slide FILE, or --set bad.path=FILE"),
        "{without}"
    );
    let glass = glass.to_str().unwrap();
    let set = format!("bad.path={glass}");
    for given in [["--slide", glass], ["--set", &set]] {
        let with = check("", &["--only", "bad: ", given[0], given[1]])
            .exits(0)
            .out;
        assert!(with.contains(" 0 failed, 0 skipped"), "{with}");
    }
    let failed = check("late", &["--only", "bad.map: pending", "--format", "json"])
        .exits(1)
        .out;
    let lines: Vec<Value> = failed
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines[0]["test"], "pending-completes-once");
    assert_eq!(lines[0]["verdict"], "failed");
    assert_eq!(lines[1]["failed"], 1);
    assert_eq!(
        (&lines[1]["plugin"], &lines[1]["version"]),
        (&"bad".into(), &"0.1.0".into())
    );
    assert_eq!(lines[1]["sha256"].as_str().map(str::len), Some(64));
    let told = check("", &["--set", "bad.map.lvel=3"]).exits(2).err;
    assert!(
        told.contains("[E0301]") && told.contains("did you mean level"),
        "{told}"
    );
    // A test that dies says how to see it die, and that is so.
    let dead = check("dies", &["--only", "bad.map: panic-contained"])
        .exits(1)
        .out;
    let again = "--in-process --only 'bad.map: panic-contained' --seed 5";
    assert!(dead.contains(again), "{dead}");
    let here = [
        "--only",
        "bad.map: one-row",
        "--only",
        "bad.weigh: ",
        "--in-process",
    ];
    let here = check("", &here).exits(0).out;
    assert!(here.contains(" 0 failed,"), "{here}");
    let dies = ["--only", "bad.map: panic-contained", "--in-process"];
    let dies = check("dies", &dies);
    assert!(dies.code.is_none(), "{}", dies.out);
    let cut = folder.path().join("libcut.so");
    std::fs::write(&cut, &std::fs::read(&library).unwrap()[..9000]).unwrap();
    let cut = ["plugin", "check", cut.to_str().unwrap(), "--format", "json"];
    let refused = said(command(cut)).exits(1).out;
    let lines: Vec<Value> = refused
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines[0]["test"], "manifest-valid");
    assert_eq!(lines[0]["verdict"], "failed");
    assert_eq!(lines[1]["sha256"].as_str().map(str::len), Some(64));
    let help = check("", &["--help"]).exits(0).out;
    let page = std::fs::read_to_string(root().join("plugins/README.md")).unwrap();
    let all = check("", &["--slide", glass, "--format", "json"])
        .exits(0)
        .out;
    for line in all.lines().filter(|line| line.contains("\"test\"")) {
        let test: Value = serde_json::from_str(line).unwrap();
        let name = test["test"].as_str().unwrap();
        assert!(help.contains(name), "{name} in\n{help}");
        assert!(
            page.contains(&format!("`{name}`")),
            "{name} in plugins/README.md"
        );
    }
    let none = check("", &["--only", "nonsense"]).exits(2);
    assert!(none.err.contains("no test has that name"), "{}", none.err);
}
