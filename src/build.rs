//! Sets `BACKFILLER_VERSION` for `--version`: the version, and the commit that it is built from if
//! that is known.

use std::fs;
use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=src/build.rs");
    let version = env!("CARGO_PKG_VERSION");
    let version = match commit_of_clone().or_else(commit_of_package) {
        Some(commit) => format!("{version} ({})", &commit[..12]),
        None => version.to_owned(),
    };
    println!("cargo:rustc-env=BACKFILLER_VERSION={version}");
}

/// The commit of a clone, according to git.
fn commit_of_clone() -> Option<String> {
    // This may be a directory inside another project's clone.
    if !git(&["rev-parse", "--show-prefix"])?.is_empty() {
        return None;
    }
    // The commit changes with HEAD itself, or with the branch that HEAD names. The branch may be in
    // packed-refs at first, and in its own file later; the log of HEAD records every change.
    let branch = git(&["symbolic-ref", "-q", "HEAD"]);
    for name in ["HEAD", "logs/HEAD", "packed-refs"].into_iter().chain(branch.as_deref()) {
        rerun_if_changed(&git(&["rev-parse", "--git-path", name])?);
    }
    hash(&git(&["rev-parse", "HEAD"])?)
}

/// The commit of a package, which cargo noted when it made the package.
fn commit_of_package() -> Option<String> {
    let path = ".cargo_vcs_info.json";
    rerun_if_changed(path);
    let info = fs::read_to_string(path).ok()?;
    let (_, after) = info.split_once("\"sha1\"")?;
    hash(after.split('"').nth(1)?)
}

fn hash(text: &str) -> Option<String> {
    let is_hash = text.len() >= 40 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_hash.then(|| text.to_owned())
}

/// Cargo considers a missing file as changed every time, so only existing ones are named.
fn rerun_if_changed(path: &str) {
    if Path::new(path).exists() {
        println!("cargo:rerun-if-changed={path}");
    }
}

/// The output of git; `None` if it fails or isn't installed.
fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim_end().to_owned())
}
