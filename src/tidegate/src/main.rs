//! The Tidegate IoT gateway: configuration, wiring, command line.

mod cli;
mod codec;
mod console;
mod file;
mod gateways;
mod passwd;
mod psk;
mod run;
mod settings;
#[cfg(test)]
mod shipped;
mod stored;

use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;

use crate::cli::{Cli, Codec, Command};

fn main() -> ExitCode {
    let cli = Cli::parse();
    if matches!(cli.command, Some(Command::ScriptWorker)) {
        return scripts::worker::main();
    }
    match act(cli) {
        Ok(text) => {
            if !text.is_empty() {
                // Whoever reads may have seen enough (`| head`).
                let _ = writeln!(io::stdout(), "{text}");
            }
            ExitCode::SUCCESS
        }
        Err(text) => {
            // Nobody may listen.
            let _ = writeln!(io::stderr(), "{text}");
            ExitCode::FAILURE
        }
    }
}

fn act(cli: Cli) -> Result<String, String> {
    match cli.command.unwrap_or(Command::Run) {
        Command::Run => run::run(cli.config, cli.data).map(|()| String::new()),
        Command::Check => settings::check(&cli.config, cli.data.as_deref()).map_err(|mistakes| {
            let lines: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
            lines.join("\n")
        }),
        Command::Passwd(args) => passwd::run(&args),
        Command::Psk { file, command } => {
            // What else is wrong with the configuration is for `check`.
            let settings =
                || settings::read(&cli.config, cli.data.as_deref(), &Arc::default(), &mut Vec::new());
            let file = file.or_else(|| settings().auth.psk);
            psk::run(file.as_deref(), &command, cli.json)
        }
        Command::Codec { command: Codec::List } => Ok(codec::list(cli.json)),
        Command::Codec { command: Codec::Show { name } } => codec::show(&name, cli.json),
        Command::Codec { command: Codec::Test { paths } } => codec::test::run(&paths, cli.json),
        Command::Codec { command: Codec::Try(what) } => {
            codec::attempt(&what, cli.json).map(|()| String::new())
        }
        Command::Version if cli.json => {
            Ok(serde_json::json!({ "version": env!("CARGO_PKG_VERSION") }).to_string())
        }
        Command::Version => Ok(format!("tidegate {}", env!("CARGO_PKG_VERSION"))),
        command => {
            // Mistakes of the configuration are for `check`; where the socket is can be told in spite of them.
            let settings = settings::read(&cli.config, cli.data.as_deref(), &Arc::default(), &mut Vec::new());
            let socket = settings.setup.admin.clone();
            let is_running = socket.as_deref().is_some_and(|s| UnixStream::connect(s).is_ok());
            if let (Command::Store { command }, false) = (&command, is_running) {
                let items = stored::run(&settings.setup.node.data, command)?;
                return console::show(&items, command, cli.json).map(|()| String::new());
            }
            let socket = socket.ok_or("admin.socket is off")?;
            console::run(&socket, &command, cli.json).map(|()| String::new())
        }
    }
}
