//! Whether a described plugin may be loaded: ABI, version, pin, policy.

use crate::describe::Described;
use crate::file::PluginFile;
use crate::manifest::Manifest;
use crate::refusal::Refusal;
use semver::VersionReq;

/// What the machine's owner allows (`plugins` in weir's own settings).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// No plugin.
    None,
    /// Plugins whose hash stands in the pipeline file.
    Pinned,
    /// Any plugin that a pipeline names.
    #[default]
    Any,
}

/// What a pipeline says of a plugin, in `[plugin.NAME]`.
#[derive(Clone, Debug, Default)]
pub struct Ask {
    /// NAME.
    pub name: String,
    /// `version`.
    pub version: Option<VersionReq>,
    /// `sha256`.
    pub sha256: Option<String>,
}

/// A plugin that may be loaded.
#[derive(Debug)]
pub struct Admitted(Described);

impl Admitted {
    /// Holds the plugin against what was asked for and what is allowed.
    pub fn new(described: Described, ask: &Ask, policy: Policy) -> Result<Admitted, Refusal> {
        check(&described, ask, policy).map_err(|refusal| refusal.of(described.file().path()))?;
        Ok(Admitted(described))
    }

    /// The file.
    pub fn file(&self) -> &PluginFile {
        self.0.file()
    }

    /// What it says of itself.
    pub fn manifest(&self) -> &Manifest {
        self.0.manifest()
    }

    /// The same as it stands in the file.
    pub(crate) fn text(&self) -> &[u8] {
        self.0.text()
    }
}

fn check(described: &Described, ask: &Ask, policy: Policy) -> Result<(), Refusal> {
    let (manifest, file) = (described.manifest(), described.file());
    let name = &manifest.name;
    if let Some(refusal) = described.foreign() {
        return Err(refusal);
    }
    if *name != ask.name {
        return Err(Refusal::new(
            "E0504",
            format!("it is plugin `{name}`, and [plugin.{}] names it", ask.name),
            format!("call the table [plugin.{name}], or name another file"),
        ));
    }
    if let Some(version) = &ask.version
        && !version.matches(&manifest.version)
    {
        return Err(Refusal::new(
            "E0512",
            format!(
                "it is version {}, and `{version}` was asked for",
                manifest.version
            ),
            "change `version`, or take another build of the plugin",
        ));
    }
    if let Some(pin) = &ask.sha256
        && !pin.eq_ignore_ascii_case(file.sha256())
    {
        return Err(Refusal::new(
            "E0507",
            format!(
                "its SHA-256{} is {}, and {pin} was asked for",
                match file.beside() {
                    Some(beside) => format!(", of it and {} together,", beside.path().display()),
                    None => String::new(),
                },
                file.sha256()
            ),
            "if you trust the new file, pin it with `weir plugin pin`; else find out who changed it",
        ));
    }
    match policy {
        Policy::None => Err(Refusal::new(
            "E0508",
            "this machine's policy allows no plugins",
            "ask who set `plugins = \"none\"`",
        )),
        Policy::Pinned if ask.sha256.is_none() => Err(Refusal::new(
            "E0508",
            "only pinned plugins are allowed, and this one has no `sha256` in the pipeline file",
            "look at the plugin, then pin it with `weir plugin pin`",
        )),
        Policy::Pinned | Policy::Any => Ok(()),
    }
}
