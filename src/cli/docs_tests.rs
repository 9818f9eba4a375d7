//! Every command line of ours in README.md and docs/ is one that this program accepts.

use std::path::Path;

use clap::Parser as _;

use super::Cli;

/// Joins continued lines, and returns those that call this program, up to the first operator of the shell.
fn commands(markdown: &str) -> Vec<String> {
    let joined = markdown.replace("\\\n", " ");
    let mut fenced = false;
    let code = joined.lines().filter(|line| {
        fenced ^= line.trim_start().starts_with("```");
        fenced || line.starts_with("    ")
    });
    let lines = code.map(|line| line.trim().trim_start_matches("$ "));
    let ours = lines.filter_map(|line| line.strip_prefix("countersign ").or(line.strip_prefix("./countersign ")));
    ours.map(str::to_owned).collect()
}

/// Splits a line as a shell does, without expansions. Comments and operators end it.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for letter in line.chars() {
        match (quote, letter) {
            (Some(open), _) if open == letter => quote = None,
            (None, '\'' | '"') => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (None, '|' | '>' | '<' | ';' | '&') => break,
            (None, '#') if word.is_none() => break,
            (None, ' ' | '\t') => words.extend(word.take()),
            _ => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    words
}

#[test]
fn commands_in_the_documents_are_accepted() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let docs = std::fs::read_dir(top.join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let pages = docs.filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    let mut checked = 0;
    for page in pages.chain([top.join("README.md")]) {
        for line in commands(&std::fs::read_to_string(&page).unwrap()) {
            let result = Cli::try_parse_from(["countersign".to_owned()].into_iter().chain(words(&line)));
            if let Err(error) = result
                && error.use_stderr()
            {
                panic!("{}: countersign {line}\n{error}", page.display());
            }
            checked += 1;
        }
    }
    assert!(checked > 30, "{checked}");
}
