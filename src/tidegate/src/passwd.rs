//! `tidegate passwd`.

use std::io::{self, BufRead, IsTerminal};

use auth::passwd::Users;

use crate::cli::Passwd;

/// Changes the file and returns what to tell the operator.
pub(crate) fn run(args: &Passwd) -> Result<String, String> {
    let (file, user) = (args.file.display(), &args.user);
    let cannot = |what: &str, e: &dyn std::fmt::Display| format!("{file}: cannot be {what}: {e}");
    let (mut users, mistakes) = Users::read(&args.file).map_err(|e| cannot("read", &e))?;
    if let Some(mistake) = mistakes.first() {
        return Err(format!("{mistake}; nothing was changed"));
    }
    let done = if args.delete {
        if !users.remove(user) {
            return Err(format!("{file}: there is no user `{user}`"));
        }
        "removed"
    } else {
        let password = if args.stdin { from_stdin()? } else { from_terminal()? };
        let mut random = [0; 64];
        getrandom::fill(&mut random).map_err(|e| format!("no random numbers: {e}"))?;
        users.set(user, &password, &random, !args.no_scram)?;
        "written"
    };
    users.write(&args.file).map_err(|e| cannot("written", &e))?;
    Ok(format!("{file}: user `{user}` {done}; a running tidegate reads it on SIGHUP"))
}

fn from_stdin() -> Result<String, String> {
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line).map_err(|e| format!("cannot read the password: {e}"))?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

fn from_terminal() -> Result<String, String> {
    if !io::stdin().is_terminal() {
        return Err("standard input is no terminal; use --stdin to read the password from it".to_owned());
    }
    let ask =
        |prompt| rpassword::prompt_password(prompt).map_err(|e| format!("cannot read the password: {e}"));
    let password = ask("Password: ")?;
    if ask("Again: ")? != password {
        return Err("the two passwords differ; nothing was changed".to_owned());
    }
    Ok(password)
}
