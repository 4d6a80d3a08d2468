//! The worker as a process, for the tests; in the product it is a subcommand.

fn main() -> std::process::ExitCode {
    scripts::worker::main()
}
