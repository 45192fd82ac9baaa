//! A machine whose /etc holds what a test says: for the processes that it starts, and for nobody else.

use crate::program::{Said, said};
use std::process::{Command, Stdio};

/// The folder that stands in /etc's place, in a mount namespace of each process.
pub struct Machine {
    etc: tempfile::TempDir,
}

impl Machine {
    /// `None` where the system allows no such namespace.
    pub fn new() -> Option<Machine> {
        let etc = tempfile::tempdir().unwrap();
        std::fs::create_dir(etc.path().join("weir")).unwrap();
        let machine = Machine { etc };
        let mut tried = machine.apart();
        tried.args(["test", "-d", "/etc/weir"]).stdin(Stdio::null());
        let there = tried.output().is_ok_and(|tried| tried.status.success());
        there.then_some(machine)
    }

    /// Writes /etc/weir/weir.toml.
    pub fn rules(&self, text: &str) {
        std::fs::write(self.etc.path().join("weir/weir.toml"), text).unwrap();
    }

    /// Runs `weir` there.
    pub fn said(&self, weir: Command) -> Said {
        let mut there = self.apart();
        there.arg(weir.get_program()).args(weir.get_args());
        for (name, value) in weir.get_envs() {
            match value {
                Some(value) => there.env(name, value),
                None => there.env_remove(name),
            };
        }
        if let Some(folder) = weir.get_current_dir() {
            there.current_dir(folder);
        }
        there.stdin(Stdio::null());
        said(there)
    }

    /// What runs its further arguments there.
    fn apart(&self) -> Command {
        let mut there = Command::new("unshare");
        there
            .args(["--user", "--map-root-user", "--mount", "sh", "-c"])
            .arg("mount --bind \"$0\" /etc && exec \"$@\"")
            .arg(self.etc.path());
        there
    }
}
