//! A plugin's process for tests and benches, which have no `weir plugin-host`.

fn main() {
    eprintln!("{}", weir_plugin_host::child::main());
    std::process::exit(2)
}
