//! A process for tests and benches, which have no `weir`: a plugin's own (`weir plugin-host`), or with an argument a test of
//! `weir plugin check` (`weir plugin trial`).

fn main() {
    if let Some(errand) = std::env::args().nth(1) {
        println!("{}", weir_plugin_host::check::child(&errand));
        return;
    }
    eprintln!("{}", weir_plugin_host::child::main());
    std::process::exit(2)
}
