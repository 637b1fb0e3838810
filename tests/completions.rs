//! The committed completions are the generated ones, and they work in each shell.

mod node;
mod support;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use support::{Run, has_tool};

fn completions() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("completions")
}

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
        let committed = fs::read_to_string(completions().join(file)).unwrap_or_default();
        assert!(
            outcome.stdout == committed,
            "completions/{file} is out of date: backfiller --generate {what} > completions/{file}"
        );
    }
}

/// The text typed after `backfiller`, and the completion of its last word in the directory made by
/// [`scratch`].
const COMPLETED: [(&str, &str); 36] = [
    ("--base-d", "--base-dir"),
    ("-d . --dry", "--dry-run"),
    ("./archive a b --dry", "--dry-run"),
    ("./archive a b last:3 all --order=forward --dry", "--dry-run"),
    ("./archive a b last:3 -n --color al", "always"),
    ("--order fo", "forward"),
    ("--order=fo", "--order=forward"),
    ("--progress al", "always"),
    ("--color=ne", "--color=never"),
    ("--generate complete-z", "complete-zsh"),
    ("-d ar", "archive/"),
    ("--base-dir ar", "archive/"),
    ("--base-dir=ar", "--base-dir=archive/"),
    ("--base-dir=./archive/desert", "--base-dir=./archive/desertbus/"),
    ("@no", "@nodes.txt"),
    ("@./no", "@./nodes.txt"),
    ("-d archive -n @no", "@nodes.txt"),
    ("--order=forward @no", "@nodes.txt"),
    ("http://a.example:1337,@no", "http://a.example:1337,@nodes.txt"),
    ("@no,@archive.t", "@no,@archive.txt"),
    ("@./two", "@./two words"),
    ("@archive/desert", "@archive/desertbus/"),
    ("./ar", "./archive/"),
    ("disk=./ar", "disk=./archive/"),
    ("no", "none"),
    ("none al", "all"),
    ("none desertbus,al", "desertbus,all"),
    ("none @no", "@nodes.txt"),
    ("-d archive none all ch", "chat"),
    ("none all all tod", "today"),
    ("none all all today yes", "yesterday"),
    ("none all all today,last:2", "today,last:24"),
    ("none all -n all @no", "@nodes.txt"),
    // There are no candidates.
    ("./archive arch", "arch"),
    ("--jobs no", "no"),
    ("http://a.ex", "http://a.ex"),
];

/// The text typed after `backfiller`, the expected candidates, and whether there are no others.
const OFFERED: [(&str, &[&str], bool); 12] = [
    ("", &["none", "http://", "https://", "@", "/"], false),
    ("none ", &["all", "@"], true),
    ("none all ", &["all", "chat", "@"], true),
    ("none all all ", &["all", "today", "yesterday", "last:3", "last:24", "@"], true),
    ("-d archive ", &["http://", "https://", "@", "/"], false),
    ("--", &["--base-dir", "--order", "--progress", "--color", "--generate", "--help"], false),
    ("--order ", &["random", "forward", "reverse"], true),
    ("--order=", &["random", "forward", "reverse"], true),
    ("--progress ", &["auto", "always", "never"], true),
    ("--color=", &["auto", "always", "never"], true),
    ("--base-dir ", &["archive", "media"], true),
    ("--base-dir=./", &["./archive", "./media"], true),
];

/// A directory with files to complete.
fn scratch() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("archive/desertbus")).unwrap();
    fs::create_dir(dir.path().join("media")).unwrap();
    for file in ["archive.txt", "nodes.txt", "two words"] {
        fs::write(dir.path().join(file), "").unwrap();
    }
    dir
}

#[test]
fn bash_completes() {
    if !has_tool("bash") || !has_tool("setsid") {
        return;
    }
    let dir = scratch();
    // Some bash configurations don't break words at `=`, `:` and `@`.
    for breaks in ["", "COMP_WORDBREAKS=${COMP_WORDBREAKS//[=:@]/}"] {
        let setup = format!(
            "PS1='{PROMPT}'; bind 'set bell-style none'; bind 'set enable-bracketed-paste off'\n\
             bind '\"{ALL}\": insert-completions'; {breaks}\n\
             source '{}'\n",
            completions().join("backfiller.bash").display()
        );
        let setup_file = dir.path().join(".setup");
        fs::write(&setup_file, setup + SHOW).unwrap();
        let args = ["--noprofile", "--rcfile", setup_file.to_str().unwrap(), "-i"];
        let mut shell = Shell::start("bash", &args, dir.path());
        shell.assert_completes();
        // When it completes a part of a path, bash quotes the @ before it.
        for list in ["", "http://a.example:1337,"] {
            let arguments = shell.arguments(&format!("{list}\\@no\t"));
            assert_eq!(arguments, [format!("{list}@nodes.txt")]);
        }
    }
}

#[test]
fn zsh_completes() {
    if !has_tool("zsh") || !has_tool("setsid") {
        return;
    }
    let dir = scratch();
    // The completer `_all_matches` inserts all candidates of the next completer.
    let setup = format!(
        "PS1='{PROMPT}'; unset zle_bracketed_paste; setopt no_auto_remove_slash no_beep no_prompt_sp\n\
         fpath=('{}' $fpath); autoload -Uz compinit; compinit -D -u\n\
         zstyle ':completion:all::::' completer _all_matches _complete\n\
         zstyle ':completion:all:*' insert yes\n\
         zle -C all complete-word _generic; bindkey '{ALL}' all\n",
        completions().display()
    );
    fs::write(dir.path().join(".zshrc"), setup + SHOW).unwrap();
    Shell::start("zsh", &["-d", "-i"], dir.path()).assert_completes();
}

#[test]
fn fish_completes() {
    if !has_tool("fish") {
        return;
    }
    let dir = scratch();
    let offered = |typed: &str| {
        let command = "source $argv[1]; complete -C \"backfiller $argv[2]\"";
        let mut fish = Command::new("fish");
        fish.args(["--no-config", "-c", command]).arg(completions().join("backfiller.fish"));
        let output = fish.arg(typed).current_dir(&dir).env("HOME", dir.path()).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
        let lines = String::from_utf8(output.stdout).unwrap();
        let words = lines.lines().map(|line| line.split('\t').next().unwrap().to_owned());
        words.collect::<Vec<_>>()
    };
    for (typed, word) in COMPLETED {
        let words = offered(typed);
        let is_left = typed.ends_with(word) && words.is_empty();
        assert!(is_left || words == [word], "{typed:?}: {words:?}");
    }
    for (typed, words, is_all) in OFFERED {
        assert_offered(typed, offered(typed), words, is_all);
    }
}

#[track_caller]
fn assert_offered(typed: &str, mut offered: Vec<String>, expected: &[&str], is_all: bool) {
    // Shells differ in whether candidates include the option's name or a directory's slash.
    for word in &mut offered {
        if let Some((_, value)) = word.split_once('=') {
            *word = value.to_owned();
        }
        if !word.ends_with("//") && word.len() > 1 {
            *word = word.trim_end_matches('/').to_owned();
        }
    }
    for word in expected {
        assert!(offered.iter().any(|offered| offered == word), "{typed:?}: {word} in {offered:?}");
    }
    assert!(!is_all || offered.len() == expected.len(), "{typed:?}: {offered:?}");
}

/// The prompt of the shells.
const PROMPT: &str = "ready> ";

/// The keys that make a shell insert all completions of a word.
const ALL: &str = "\\C-xa";

/// `backfiller`, as a function that shows its arguments.
const SHOW: &str = "backfiller() { printf '<%s>\\n' \"$@\"; echo '<>'; }\n";

/// A shell on a terminal.
struct Shell {
    child: Child,
    keyboard: File,
    screen: Receiver<Vec<u8>>,
    unread: String,
}

impl Shell {
    /// Starts a shell with this directory as its working directory and home.
    fn start(shell: &str, args: &[&str], dir: &Path) -> Shell {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let path = ptsname(&master, Vec::new()).unwrap();
        let open = || File::options().read(true).write(true).open(path.to_str().unwrap()).unwrap();
        // In a session of its own, it can't change the terminal that the tests run on.
        let mut command = Command::new("setsid");
        command.args(["--ctty", shell]).args(args).current_dir(dir);
        command.env("HOME", dir).env("ZDOTDIR", dir).env("TERM", "dumb").env_remove("INPUTRC");
        let child = command.stdin(open()).stdout(open()).stderr(open()).spawn().unwrap();
        let keyboard = File::from(master);
        let mut reader = keyboard.try_clone().unwrap();
        let (written, screen) = mpsc::channel();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(read @ 1..) = reader.read(&mut buffer) {
                let _ = written.send(buffer[..read].to_vec());
            }
        });
        let mut shell = Shell { child, keyboard, screen, unread: String::new() };
        shell.read_to(PROMPT);
        shell
    }

    /// Its output up to this text, which is awaited for a limited time.
    fn read_to(&mut self, end: &str) -> String {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(at) = self.unread.find(end) {
                let read = self.unread.drain(..at + end.len()).collect();
                return read;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match self.screen.recv_timeout(left) {
                Ok(bytes) => self.unread.push_str(&String::from_utf8_lossy(&bytes)),
                Err(_) => panic!("no {end:?} in {:?}", self.unread),
            }
        }
    }

    /// Types this after `backfiller`. Returns the arguments that the program receives.
    fn arguments(&mut self, typed: &str) -> Vec<String> {
        self.keyboard.write_all(format!("backfiller {typed}\r").as_bytes()).unwrap();
        let screen = self.read_to("\n<>");
        self.read_to(PROMPT);
        let lines = screen.lines().filter_map(|line| line.strip_prefix('<'));
        let arguments = lines.filter_map(|line| line.trim_end().strip_suffix('>'));
        arguments.filter(|argument| !argument.is_empty()).map(str::to_owned).collect()
    }

    fn assert_completes(&mut self) {
        for (typed, word) in COMPLETED {
            let arguments = self.arguments(&format!("{typed}\t"));
            assert_eq!(arguments.len(), typed.split(' ').count(), "{typed:?}: {arguments:?}");
            assert_eq!(arguments.last().unwrap(), word, "{typed:?}: {arguments:?}");
        }
        for (typed, words, is_all) in OFFERED {
            let before = typed.split(' ').count() - 1;
            let mut arguments = self.arguments(&format!("{typed}\x18a"));
            arguments.drain(..before);
            assert_offered(typed, arguments, words, is_all);
        }
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
