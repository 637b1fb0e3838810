//! Completions for each shell. Around what clap generates there is hand-written code for bash, zsh
//! and fish, because clap can't complete an argument that is a URL, a directory or an `@FILE`.

use clap::{CommandFactory, ValueHint};
use clap_complete::Shell;

use super::args::Args;

/// The script for this shell.
pub(super) fn script(shell: Shell) -> String {
    let generated = generated(shell);
    match shell {
        Shell::Bash => {
            format!("{generated}\n{}{}", takes_value_sh(), include_str!("complete.bash"))
        }
        // zsh runs the file as the body of `_backfiller`. clap's script would complete at once,
        // without the hand-written part; inside another function it only defines its own.
        Shell::Zsh => format!(
            "#compdef backfiller\n\n_backfiller_define() {{\n{generated}}}\n_backfiller_define\n\n{}{}",
            takes_value_sh(),
            include_str!("complete.zsh")
        ),
        Shell::Fish => {
            format!("{generated}\n{}{}", takes_value_fish(), include_str!("complete.fish"))
        }
        _ => generated,
    }
}

/// Generates clap's script. Values that are not declared to be paths are not completed as paths.
fn generated(shell: Shell) -> String {
    let mut command = Args::command().mut_args(|arg| {
        let is_free = arg.get_action().takes_values() && arg.get_possible_values().is_empty();
        match arg.get_value_hint() {
            ValueHint::Unknown if is_free && !arg.is_positional() => {
                arg.value_hint(ValueHint::Other)
            }
            _ => arg,
        }
    });
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, "backfiller", &mut script);
    String::from_utf8(script).expect("clap generates text")
}

/// The options whose value may be the next word.
fn options_with_value() -> Vec<String> {
    let command = Args::command();
    let mut names = Vec::new();
    for option in command.get_opts().filter(|option| option.get_action().takes_values()) {
        names.extend(option.get_short().map(|short| format!("-{short}")));
        names.extend(option.get_long().map(|long| format!("--{long}")));
    }
    names
}

/// A function for bash and zsh that says whether a word is one of these options.
fn takes_value_sh() -> String {
    let options = options_with_value().join("|");
    format!(
        "_backfiller_takes_value() {{\n    case $1 in\n        {options}) ;;\n        *) return 1 ;;\n    \
         esac\n}}\n"
    )
}

/// The same for fish.
fn takes_value_fish() -> String {
    let options = options_with_value().join(" ");
    format!("function __backfiller_takes_value\n    contains -- $argv[1] {options}\nend\n")
}
