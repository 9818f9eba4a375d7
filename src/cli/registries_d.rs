//! `countersign registries-d check`: are these registries.d files, and what do they do?

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use super::check::{self, Checked};
use super::host::ConfigSearch;
use super::output::{Answer, Format};
use crate::escape;
use crate::go;
use crate::host;
use crate::lookup::review_registries;
use crate::registries_d::{Configuration, ConfigurationError, DEFAULT_DOCKER, Key, Placed, Search};

/// Work on registries.d files
#[derive(Debug, Args)]
pub struct RegistriesDCommand {
    #[command(subcommand)]
    command: Work,
}

#[derive(Debug, Subcommand)]
enum Work {
    Check(Check),
}

/// Read registries.d files as containers/image, and say what deserves a second look
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
struct Check {
    /// Folders, each read as a whole, and files, which are read as if they lay in one folder
    #[arg(required = true, value_name = "DIR|FILE")]
    paths: Vec<PathBuf>,
    /// By whose rules folders are read
    #[arg(long, value_enum, default_value_t, value_name = "WHOSE")]
    config_search: ConfigSearch,
}

const EXAMPLES: &str = "\
Examples:
  countersign registries-d check /etc/containers/registries.d
  countersign registries-d check registries.d/*.yaml --format json

Exit codes: 0 all valid; 1 one is invalid; 2 one cannot be read.";

impl RegistriesDCommand {
    pub fn run(self, format: Format) -> anyhow::Result<Answer> {
        let Work::Check(Check { paths, config_search }) = self.command;
        let mut files = Configuration::default();
        let checked = |path: &PathBuf| {
            if path.is_dir() { folder(path, config_search) } else { file(path, &mut files) }
        };
        check::report(format, &paths.iter().map(checked).collect::<Vec<_>>())
    }
}

fn folder(path: &Path, config_search: ConfigSearch) -> Checked {
    let name = path.display().to_string();
    let search = Search { generation: config_search.into(), ..Search::explicit(path) };
    let loaded = search.files().map_err(ConfigurationError::from).and_then(|files| {
        let configuration = Configuration::load(&search)?;
        Ok((files, configuration))
    });
    let (files, configuration) = match loaded {
        Ok(loaded) => loaded,
        Err(error) => return Checked::wrong(name, error.to_string(), matches!(error, ConfigurationError::Search(_))),
    };
    let (mut warnings, mut lines) = (Vec::new(), Vec::new());
    for file in files {
        // It was read just now; if it is gone again there is nothing to say of it.
        let bytes = host::read(&file).unwrap_or_default();
        let shown = file.display();
        warnings.extend(review_registries(&configuration, &file, &bytes).iter().map(|told| format!("{shown}: {told}")));
        lines.push(escape::path(&file));
        lines.extend(table(&configuration, &file).iter().map(|line| format!("  {line}")));
    }
    warnings.extend(passed_over(path).iter().map(|file| format!("{file}: nobody reads it, names must end in .yaml")));
    Checked::right(name, warnings, lines)
}

/// Files that look like configuration to people only.
fn passed_over(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    let mut names: Vec<String> = entries
        .map(|entry| entry.path())
        .filter(|path| {
            let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
            matches!(extension.as_str(), "yml" | "yaml" | "json") && !path.to_string_lossy().ends_with(".yaml")
        })
        .map(|path| path.display().to_string())
        .collect();
    names.sort();
    names
}

fn file(path: &Path, configuration: &mut Configuration) -> Checked {
    let name = path.display().to_string();
    let bytes = match host::read(path) {
        Ok(bytes) => bytes,
        Err(error) => return Checked::wrong(name, error.to_string(), true),
    };
    if let Err(error) = configuration.add(path, &bytes) {
        return Checked::wrong(name, error.to_string(), false);
    }
    let mut warnings = review_registries(configuration, path, &bytes);
    if !name.ends_with(".yaml") {
        warnings.push("nobody reads it, names must end in .yaml".to_owned());
    }
    Checked::right(name, warnings, table(configuration, path))
}

/// What a file says, a line for each namespace.
fn table(configuration: &Configuration, path: &Path) -> Vec<String> {
    let named = configuration.of_file(path).map(|(namespace, placed)| (go::quote(namespace), placed));
    let default = configuration.default_docker.iter().filter(|placed| placed.path == path);
    let default = default.map(|placed| (DEFAULT_DOCKER.to_owned(), placed));
    let rows: Vec<(String, &Placed)> = default.chain(named).collect();
    let width = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or_default();
    rows.into_iter().map(|(name, placed)| format!("{name:<width$}  {}", said(placed))).collect()
}

fn said(placed: &Placed) -> String {
    let section = &placed.section;
    let mut said: Vec<String> = Key::ALL
        .into_iter()
        .filter(|key| !section.url(*key).is_empty())
        .map(|key| match crate::registries_d::LookasideBase::parse(section.url(key)) {
            Ok(base) => format!("{} {}", key.name(), escape::word(base.to_string())),
            Err(_) => format!("{} (no URL)", key.name()),
        })
        .collect();
    said.extend(section.use_sigstore_attachments.map(|value| format!("use-sigstore-attachments {value}")));
    if said.is_empty() { "nothing".to_owned() } else { said.join(", ") }
}
