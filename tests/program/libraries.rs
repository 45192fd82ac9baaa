//! Small plugins, compiled by gcc, that leave a mark when any of their code runs.
#![allow(dead_code)]

use std::path::{Path, PathBuf};
use std::process::Command;

/// A plugin's source: its manifest, where it has one, its entry's name, and the file that its constructor makes.
pub struct Library<'a> {
    pub manifest: Option<&'a str>,
    pub entry: &'a str,
    pub mark: &'a Path,
}

impl Library<'_> {
    /// Compiles it to `so`.
    pub fn build(&self, so: &Path) -> PathBuf {
        let (section, kept) = match self.manifest {
            Some(text) => (format!("WEIR_MANIFEST({text:?});\n"), "weir_manifest"),
            None => (String::new(), "\"\""),
        };
        let (entry, mark) = (self.entry, self.mark);
        let text = format!(
            r#"#include <fcntl.h>
#include <unistd.h>
#include "weir_plugin.h"
{section}
static const weir_plugin plugin = {{ .struct_size = sizeof plugin, .abi_minor = WEIR_ABI_MINOR, .manifest = {kept} }};
__attribute__((constructor)) static void ran(void) {{ close(open({mark:?}, O_CREAT | O_WRONLY, 0644)); }}
WEIR_EXPORT weir_status {entry}(const weir_host *host, weir_call *call, const weir_plugin **out) {{
  (void)host; (void)call; *out = &plugin; return WEIR_OK;
}}
"#
        );
        let c = so.with_extension("c");
        std::fs::write(&c, text).unwrap();
        let header = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugins/abi");
        let built = Command::new("gcc")
            .args([
                "-std=gnu11",
                "-Wall",
                "-Wextra",
                "-Werror",
                "-shared",
                "-fPIC",
                "-Wl,--gc-sections",
                "-I",
            ])
            .args([&header, Path::new("-o"), so, &c])
            .output()
            .unwrap();
        assert!(
            built.status.success(),
            "{}",
            String::from_utf8_lossy(&built.stderr)
        );
        std::fs::remove_file(c).unwrap();
        so.to_owned()
    }
}
