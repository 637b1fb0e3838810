//! The committed completions are those that the program generates.

mod node;
mod support;

use std::fs;
use std::path::Path;

use support::Run;

#[test]
fn the_committed_completions_are_up_to_date() {
    for (what, file) in [
        ("complete-bash", "backfiller.bash"),
        ("complete-zsh", "_backfiller"),
        ("complete-fish", "backfiller.fish"),
        ("complete-elvish", "backfiller.elv"),
        ("complete-powershell", "_backfiller.ps1"),
    ] {
        let outcome = Run::new(["--generate", what]).run();
        outcome.assert_code(0);
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("completions").join(file);
        let committed = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            outcome.stdout == committed,
            "completions/{file} is out of date: backfiller --generate {what} > completions/{file}"
        );
    }
}
