//! The table of a dry run: which rules there are, where each was given, and who would sign.

use std::collections::BTreeMap;

use crate::escape;
use crate::image::is_within;
use crate::openpgp::Fingerprint;
use crate::resign::{Keys, RenameMap};

/// Lays out the rules and keys of a job.
pub(super) fn table(renames: &RenameMap, keys: &Keys) -> Vec<String> {
    let routes: Vec<(Option<&str>, &Fingerprint)> =
        keys.all().map(|(prefix, key)| (prefix, key.signer.fingerprint())).collect();
    let mut rows = vec![["OLD", "NEW", "SIGNED BY", "RULE FROM"].map(str::to_owned)];
    for rule in renames.rules() {
        let signers = rule.new_name().map(|new| signers(&routes, new)).unwrap_or_default();
        let new = rule.new_name().map_or_else(|| "(stays, not signed)".to_owned(), escape::word);
        rows.push([escape::word(rule.old()), new, signers, rule.origin().to_string()]);
    }
    let widths =
        [0, 1, 2].map(|column| rows.iter().filter_map(|row| row.get(column)).map(String::len).max().unwrap_or(0));
    let [a, b, c] = widths;
    let row = |[old, new, signers, origin]: &[String; 4]| format!("{old:a$}  {new:b$}  {signers:c$}  {origin}");
    let mut known: Vec<String> = routes.iter().map(|(_, key)| format!("{} is {key}", key.key_id())).collect();
    known.sort_unstable();
    known.dedup();
    rows.iter().map(row).chain(known).collect()
}

/// Says who signs names at and below `new`, and where below it that is somebody else.
fn signers(routes: &[(Option<&str>, &Fingerprint)], new: &str) -> String {
    let covers = |prefix: &Option<&str>| prefix.is_none_or(|prefix| is_within(new, prefix));
    let nearest =
        routes.iter().map(|(prefix, _)| *prefix).filter(covers).max_by_key(|prefix| prefix.map_or(0, str::len));
    let mut groups: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (prefix, key) in routes {
        let below = prefix.filter(|prefix| is_within(prefix, new));
        let group = if nearest == Some(*prefix) {
            ""
        } else if let Some(below) = below {
            below
        } else {
            continue;
        };
        groups.entry(group).or_default().push(key.key_id().to_string());
    }
    let groups = groups.into_iter().map(|(prefix, keys)| {
        let place = if prefix.is_empty() { String::new() } else { format!(" at {}", escape::word(prefix)) };
        format!("{}{place}", keys.join("+"))
    });
    groups.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::openpgp::LoadedKey;
    use crate::resign::RenameFile;

    fn key(name: &str) -> LoadedKey {
        let file = format!("{}/tests/data/keys/{name}.sec.asc", env!("CARGO_MANIFEST_DIR"));
        LoadedKey::from_file(&std::fs::read(file).unwrap(), None, std::time::SystemTime::now()).unwrap()
    }

    #[test]
    fn rules_and_signers() {
        let text = "rules: [ibm]\nexceptions:\n  registry.ng.bluemix.net/birds: de.icr.io/birds\n  \
                    registry.ng.bluemix.net/secret: null\n";
        let file = RenameFile::parse("rules.yaml", text).unwrap();
        let renames = RenameMap::new(&["old.example=new.example"], &[file]).unwrap();
        let routes = vec![("us.icr.io/team".to_owned(), key("bob")), ("de.icr.io".to_owned(), key("carol"))];
        let keys = Keys::new(vec![key("alice"), key("bob")], routes).unwrap();
        let table = table(&renames, &keys);
        let lines: Vec<&str> = table.iter().map(|line| line.trim_end()).collect();
        insta::assert_snapshot!(lines.join("\n"), @r#"
        OLD                                     NEW                      SIGNED BY                                                              RULE FROM
        private.registry.ng.bluemix.net/secret  (stays, not signed)                                                                             rules.yaml:4, private twin
        private.registry.ng.bluemix.net/birds   private.de.icr.io/birds  D848E0E1E53B76D0+072E80C800ADE2E2                                      rules.yaml:3, private twin
        private.registry.au-syd.bluemix.net     private.au.icr.io        D848E0E1E53B76D0+072E80C800ADE2E2                                      built-in ibm, rules.yaml:1
        private.registry.eu-de.bluemix.net      private.de.icr.io        D848E0E1E53B76D0+072E80C800ADE2E2                                      built-in ibm, rules.yaml:1
        private.registry.eu-gb.bluemix.net      private.uk.icr.io        D848E0E1E53B76D0+072E80C800ADE2E2                                      built-in ibm, rules.yaml:1
        private.registry.ng.bluemix.net         private.us.icr.io        D848E0E1E53B76D0+072E80C800ADE2E2                                      built-in ibm, rules.yaml:1
        registry.ng.bluemix.net/secret          (stays, not signed)                                                                             rules.yaml:4
        registry.ng.bluemix.net/birds           de.icr.io/birds          8D4EA5318C22D007                                                       rules.yaml:3
        private.registry.bluemix.net            private.icr.io           D848E0E1E53B76D0+072E80C800ADE2E2                                      built-in ibm, rules.yaml:1
        registry.au-syd.bluemix.net             au.icr.io                D848E0E1E53B76D0+072E80C800ADE2E2                                      built-in ibm, rules.yaml:1
        registry.eu-de.bluemix.net              de.icr.io                8D4EA5318C22D007                                                       built-in ibm, rules.yaml:1
        registry.eu-gb.bluemix.net              uk.icr.io                D848E0E1E53B76D0+072E80C800ADE2E2                                      built-in ibm, rules.yaml:1
        registry.ng.bluemix.net                 us.icr.io                D848E0E1E53B76D0+072E80C800ADE2E2, 072E80C800ADE2E2 at us.icr.io/team  built-in ibm, rules.yaml:1
        registry.bluemix.net                    icr.io                   D848E0E1E53B76D0+072E80C800ADE2E2                                      built-in ibm, rules.yaml:1
        old.example                             new.example              D848E0E1E53B76D0+072E80C800ADE2E2                                      command line
        072E80C800ADE2E2 is ED0A14420E831D5D8BAAB523072E80C800ADE2E2
        8D4EA5318C22D007 is 3E83E3B3693537609721A48A8D4EA5318C22D007
        D848E0E1E53B76D0 is 1DBC0E9F3F265E5D70282E47D848E0E1E53B76D0
        "#);
    }
}
