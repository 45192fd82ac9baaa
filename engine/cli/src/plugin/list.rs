//! `weir plugin list`.

use crate::args::Format;
use crate::message::{Done, Manner};
use crate::shown;
use serde_json::{Value, json};
use std::io::Write;
use weir_plugin_host::beside::Beside;
use weir_plugin_host::scan::{Listed, Scanned, State, scan};
use weir_plugin_host::{Folders, Policy, Refusal};
use weir_runtime::exit;

/// Prints every file in the folders: what it is, or why it cannot be used; then the folders, and what became of looking into them.
pub fn list(manner: &Manner, out: &mut dyn Write) -> Done {
    let catalogue = super::catalogue(false)?;
    let scanned = scan(catalogue.folders());
    let files = || scanned.iter().flat_map(|scanned| &scanned.files);
    if manner.format == Format::Json {
        for line in files().map(json).chain(scanned.iter().map(of_folder)) {
            writeln!(out, "{line}")?;
        }
        return Ok(exit::DONE);
    }
    if files().next().is_none() {
        writeln!(out, "no plugins")?;
    }
    for listed in files() {
        out.write_all(text(listed).as_bytes())?;
    }
    writeln!(
        out,
        "\nfolders, in the order in which they are looked into:"
    )?;
    for scanned in &scanned {
        out.write_all(folder(scanned).as_bytes())?;
    }
    if catalogue.rules().plugins != Policy::Any {
        writeln!(out, "\n{} holds for all of them", catalogue.rules().said_by)?;
    }
    Ok(exit::DONE)
}

/// `2 stage types, 1 slide reader`.
pub fn holds(stages: usize, readers: usize) -> String {
    let parts = [(stages, "stage type"), (readers, "slide reader")];
    let parts = parts.into_iter().filter(|(n, _)| *n > 0);
    let parts: Vec<String> = parts
        .map(|(n, noun)| shown::counted(n as u64, noun))
        .collect();
    parts.join(", ")
}

fn text(listed: &Listed) -> String {
    let manifest = match &listed.plugin {
        Ok(plugin) => plugin.manifest(),
        Err(refusal) => return refused(refusal),
    };
    let mut text = format!(
        "{} {}: {} ({})\n    {}\n",
        manifest.name,
        manifest.version,
        manifest.summary,
        holds(manifest.stages.len(), manifest.readers.len()),
        listed.path.display()
    );
    if let Some(other) = &listed.shadowed_by {
        text.push_str(&format!("    not used: {} comes first\n", other.display()));
    }
    text
}

fn refused(refusal: &Refusal) -> String {
    let path = refusal.path.as_deref();
    let path = path.map_or_else(String::new, |path| path.display().to_string());
    format!(
        "!! {path}\n    [{}] {}\n    {}\n",
        refusal.code, refusal.what, refusal.help
    )
}

/// `/usr/lib/weir/plugins: not there`.
fn folder(scanned: &Scanned) -> String {
    let name = scanned.folder.display();
    match &scanned.state {
        State::Searched => {
            let files = shown::counted(scanned.files.len() as u64, "file");
            format!("{name}: {files}\n")
        }
        State::NotThere => format!("{name}: not there\n"),
        State::Unlisted(error) => {
            format!("{name}: cannot be listed ({error}); plugins in it are found by their names\n")
        }
        State::Refused(refusal) => refused(refusal),
    }
}

fn of_folder(scanned: &Scanned) -> Value {
    let (folder, files) = (&scanned.folder, scanned.files.len());
    match &scanned.state {
        State::Searched => json!({ "folder": folder, "state": "searched", "files": files }),
        State::NotThere => json!({ "folder": folder, "state": "not-there" }),
        State::Unlisted(error) => {
            json!({ "folder": folder, "state": "unlisted", "what": error.to_string() })
        }
        State::Refused(refusal) => json!({
            "folder": folder, "state": "refused", "code": refusal.code, "what": refusal.what, "help": refusal.help,
        }),
    }
}

fn json(listed: &Listed) -> Value {
    match &listed.plugin {
        Ok(plugin) => {
            let manifest = plugin.manifest();
            let stages = manifest.stages.iter().map(|stage| stage.id.as_str());
            let readers = manifest.readers.iter().map(|reader| reader.id.as_str());
            json!({
                "file": listed.path,
                "name": manifest.name,
                "version": manifest.version.to_string(),
                "summary": manifest.summary,
                "sha256": plugin.file().sha256(),
                "manifest": plugin.file().beside().map(Beside::path),
                "stages": stages.collect::<Vec<_>>(),
                "readers": readers.collect::<Vec<_>>(),
                "shadowed_by": listed.shadowed_by,
            })
        }
        Err(refusal) => of_refusal(refusal),
    }
}

fn of_refusal(refusal: &Refusal) -> Value {
    json!({ "file": refusal.path, "code": refusal.code, "what": refusal.what, "help": refusal.help })
}

/// What `weir doctor` says of the folders: those that are there with what they hold, and whether anything cannot be used.
pub fn summary(folders: &Folders) -> (String, bool) {
    let scanned = scan(folders);
    let sound = scanned.iter().all(|scanned| {
        !matches!(scanned.state, State::Refused(_))
            && scanned.files.iter().all(|listed| listed.plugin.is_ok())
    });
    let parts = scanned.iter().filter_map(|scanned| {
        let folder = scanned.folder.display();
        let names = scanned.files.iter().filter_map(|listed| {
            let manifest = listed.plugin.as_ref().ok()?.manifest();
            Some(format!("{} {}", manifest.name, manifest.version))
        });
        let names: Vec<String> = names.collect();
        match (&scanned.state, names.as_slice()) {
            (State::NotThere, _) => None,
            (State::Unlisted(_), _) => Some(format!("{folder} cannot be listed")),
            (State::Refused(_), _) => Some(format!("{folder} is not used")),
            (State::Searched, []) => Some(format!("none in {folder}")),
            (State::Searched, names) => Some(format!("{} in {folder}", names.join(", "))),
        }
    });
    let mut parts: Vec<String> = parts.collect();
    if parts.is_empty() {
        let folders: Vec<String> = folders
            .iter()
            .map(|folder| folder.display().to_string())
            .collect();
        parts.push(format!("none; none of {} is there", folders.join(", ")));
    }
    (parts.join("; "), sound)
}
