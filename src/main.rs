//! The command; everything else is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    backfiller::run(std::env::args_os()).into()
}
