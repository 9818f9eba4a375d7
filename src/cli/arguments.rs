//! Reads the command line. What clap says of a wrong one repeats it, and help shows the variables of the
//! environment; scripts put names there that strangers chose. So these are escaped before clap speaks.

use std::ffi::{OsStr, OsString};
use std::process::ExitCode;

use clap::builder::Resettable;
use clap::{Command, CommandFactory as _, FromArgMatches as _};

use super::{Cli, output};
use crate::escape;

/// Reads the process's command line; what is wrong with it is told, and so is help.
///
/// # Errors
/// The exit code of the process, which has nothing else to do.
pub fn parse() -> Result<Cli, ExitCode> {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let read = |mut command: Command, arguments: &[OsString]| {
        let matches = command.try_get_matches_from_mut(arguments)?;
        Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
    };
    let error = match read(Cli::command(), &arguments) {
        Ok(cli) => return Ok(cli),
        Err(error) => error,
    };
    // The same complaint once more, about words that can be shown.
    let shown: Vec<OsString> = arguments.iter().map(|argument| shown(argument)).collect();
    let mut passed_over = Vec::new();
    let command = without_hidden(Cli::command(), &mut passed_over);
    let error = match read(command, &shown) {
        Err(error) => error,
        Ok(_) if passed_over.is_empty() => {
            output::talk(&format!("countersign: the command line cannot be used: {}", error.kind()));
            return Err(ExitCode::from(2));
        }
        Ok(_) => {
            let names = passed_over.join(", ");
            output::talk(&format!("countersign: {names}: the value in the environment cannot be used; set another"));
            return Err(ExitCode::from(2));
        }
    };
    let _ = error.print();
    Err(ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2)))
}

fn shown(argument: &OsStr) -> OsString {
    match argument.to_str() {
        Some(text) => escape::line(text).into_owned().into(),
        None => escape::text(argument.as_encoded_bytes()).into(),
    }
}

/// Takes the variables of the environment off a command whose values cannot be shown, and names them.
fn without_hidden(command: Command, passed_over: &mut Vec<String>) -> Command {
    let command = command.mut_args(|argument| {
        let hidden = argument.get_env().and_then(|name| {
            let value = std::env::var_os(name)?;
            (shown(&value) != value).then(|| name.to_string_lossy().into_owned())
        });
        match hidden {
            Some(name) => {
                passed_over.push(name);
                argument.env(Resettable::Reset)
            }
            None => argument,
        }
    });
    let names: Vec<String> = command.get_subcommands().map(|command| command.get_name().to_owned()).collect();
    names
        .into_iter()
        .fold(command, |command, name| command.mut_subcommand(name, |sub| without_hidden(sub, passed_over)))
}
