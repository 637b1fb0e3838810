//! Passes that write a metrics file, and what is in the file.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use super::{Archive, Run};

/// An archive, and a directory for its metrics file.
pub struct Machine {
    pub archive: Archive,
    pub dir: tempfile::TempDir,
}

impl Machine {
    pub fn new() -> Machine {
        Machine { archive: Archive::new(), dir: tempfile::tempdir().unwrap() }
    }

    pub fn file(&self) -> PathBuf {
        self.dir.path().join("backfiller.prom")
    }

    /// A pass over `desertbus/source` with the metrics file.
    pub fn backfill(&self, nodes: &str, hour: &str, options: &[&str]) -> Run {
        let mut run = self.archive.backfill([nodes, "desertbus", "source", hour]);
        run.command.args(options).arg("--metrics-file").arg(self.file());
        run
    }

    pub fn samples(&self) -> Samples {
        Samples::parse(&fs::read_to_string(self.file()).unwrap()).unwrap()
    }

    /// Checks that the file is the only one in its directory.
    #[track_caller]
    pub fn assert_alone(&self) {
        let names = fs::read_dir(self.dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
        assert_eq!(names.collect::<Vec<_>>(), ["backfiller.prom"]);
    }
}

/// The samples of a metrics file by name and labels, without the label `file` that each of them has.
#[derive(Debug, PartialEq)]
pub struct Samples(pub BTreeMap<String, f64>);

impl Samples {
    /// Parses a file.
    ///
    /// # Errors
    ///
    /// Fails if it is not whole, or not a metrics file.
    pub fn parse(text: &str) -> Result<Samples, String> {
        let text = text.strip_suffix('\n').ok_or_else(|| format!("it is cut off: {text:?}"))?;
        let mut samples = BTreeMap::new();
        for line in text.split('\n').filter(|line| !line.starts_with("# ")) {
            let sample = line.rsplit_once("} ").and_then(|(key, value)| {
                let (name, labels) = key.split_once('{')?;
                let is_name = name.bytes().all(|b| b == b'_' || b.is_ascii_lowercase());
                let is_whole = is_name && labels.ends_with('"');
                let key = key.strip_suffix("file=\"backfiller.prom\"")?;
                let key = key.strip_suffix(',').unwrap_or(key);
                is_whole.then_some((format!("{key}}}"), value.parse().ok()?))
            });
            let (key, value) = sample.ok_or_else(|| format!("no sample: {line:?} in {text:?}"))?;
            if samples.insert(key, value).is_some() {
                return Err(format!("twice: {line}"));
            }
        }
        Ok(Samples(samples))
    }

    #[track_caller]
    pub fn assert(&self, key: &str, value: f64) {
        assert_eq!(self.0.get(key), Some(&value), "{key} in {:#?}", self.0);
    }

    #[track_caller]
    pub fn assert_none(&self, part: &str) {
        assert_eq!(self.0.keys().find(|key| key.contains(part)), None);
    }

    /// A value that is measured with a clock.
    #[track_caller]
    pub fn value(&self, key: &str) -> f64 {
        *self.0.get(key).unwrap_or_else(|| panic!("no {key} in {:#?}", self.0))
    }

    /// All samples of a metric, by their labels.
    pub fn of(&self, name: &str) -> Vec<(&str, f64)> {
        let start = format!("{name}{{");
        let found = self.0.iter().filter(|(key, _)| key.starts_with(&start));
        found.map(|(key, value)| (&key[name.len()..], *value)).collect()
    }

    /// The samples added up, by name and by one of their labels, which may be missing.
    pub fn sums_by(&self, label: &str) -> BTreeMap<(String, String), f64> {
        let mut sums = BTreeMap::new();
        for (key, value) in &self.0 {
            let (name, labels) = key.split_once('{').unwrap();
            let of = labels.split_once(&format!("{label}=\"")).map_or("", |(_, rest)| rest);
            let of = of.split('"').next().unwrap().to_owned();
            *sums.entry((name.to_owned(), of)).or_default() += value;
        }
        sums
    }
}
