//! TOML as Go's `BurntSushi/toml` decodes it into structures: keys are compared without case,
//! unknown ones are ignored, a value of another type than the field's refuses the file.
//!
//! The sentences for wrong types are Go's; those for broken syntax are our parser's own.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Why a file is no TOML, or not of the right shape.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TomlError {
    /// Broken syntax.
    #[error("toml: line {line}: {reason}")]
    Syntax {
        /// The line, from 1.
        line: usize,
        /// What the parser says.
        reason: String,
    },
    /// A value of the wrong type.
    #[error(
        "toml: line {line} (last key {key:?}): incompatible types: TOML value has type {found}; destination has type {wanted}"
    )]
    Type {
        /// The line, from 1.
        line: usize,
        /// The key with those above it: `registry.location`.
        key: String,
        /// Go's name of the value's type.
        found: &'static str,
        /// Go's name of the wanted type.
        wanted: &'static str,
    },
}

/// One table of a file, and where it stands.
#[derive(Clone, Copy)]
pub(super) struct Table<'a> {
    text: &'a str,
    path: &'a str,
    table: &'a DeTable<'a>,
}

/// Parses a file and hands its top table to `read`.
pub(super) fn parse<T, E: From<TomlError>>(bytes: &[u8], read: impl FnOnce(Table<'_>) -> Result<T, E>) -> Result<T, E> {
    let text = std::str::from_utf8(bytes).map_err(|e| {
        let good = bytes.get(..e.valid_up_to()).unwrap_or_default();
        TomlError::Syntax { line: line(good, good.len()), reason: "invalid UTF-8".to_owned() }
    })?;
    let top = DeTable::parse(text).map_err(|e| TomlError::Syntax {
        line: line(bytes, e.span().map_or(0, |span| span.start)),
        reason: e.message().to_owned(),
    })?;
    read(Table { text, path: "", table: top.get_ref() })
}

fn line(bytes: &[u8], at: usize) -> usize {
    bytes.iter().take(at).filter(|byte| **byte == b'\n').count() + 1
}

impl<'a> Table<'a> {
    /// Finds a member: of its exact name, or else of the same name without case.
    fn member(&self, name: &str) -> Option<&'a Spanned<DeValue<'a>>> {
        let find = |same: &dyn Fn(&str) -> bool| {
            self.table.iter().find(|(key, _)| same(key.get_ref().as_ref())).map(|(_, value)| value)
        };
        find(&|key| key == name).or_else(|| find(&|key| key.to_lowercase() == name))
    }

    fn wrong(&self, name: &str, value: &Spanned<DeValue<'_>>, wanted: &'static str) -> TomlError {
        let key = if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) };
        let found = match value.get_ref() {
            DeValue::String(_) => "string",
            DeValue::Integer(_) => "int64",
            DeValue::Float(_) => "float64",
            DeValue::Boolean(_) => "bool",
            DeValue::Datetime(_) => "time.Time",
            DeValue::Array(_) => "[]interface {}",
            DeValue::Table(_) => "map[string]interface {}",
        };
        TomlError::Type { line: line(self.text.as_bytes(), value.span().start), key, found, wanted }
    }

    /// Returns a text; absent is empty.
    pub(super) fn text(&self, name: &str) -> Result<String, TomlError> {
        match self.member(name).map(|value| (value, value.get_ref())) {
            None => Ok(String::new()),
            Some((_, DeValue::String(text))) => Ok(text.clone().into_owned()),
            Some((value, _)) => Err(self.wrong(name, value, "string")),
        }
    }

    /// Returns a boolean; absent is false.
    pub(super) fn boolean(&self, name: &str) -> Result<bool, TomlError> {
        match self.member(name).map(|value| (value, value.get_ref())) {
            None => Ok(false),
            Some((_, DeValue::Boolean(value))) => Ok(*value),
            Some((value, _)) => Err(self.wrong(name, value, "boolean")),
        }
    }

    /// Returns a list of texts; absent is not the same as empty.
    pub(super) fn texts(&self, name: &str) -> Result<Option<Vec<String>>, TomlError> {
        let Some(value) = self.member(name) else { return Ok(None) };
        let DeValue::Array(items) = value.get_ref() else { return Err(self.wrong(name, value, "slice")) };
        let texts = items.iter().map(|item| match item.get_ref() {
            DeValue::String(text) => Ok(text.clone().into_owned()),
            _ => Err(self.wrong(name, item, "string")),
        });
        texts.collect::<Result<_, _>>().map(Some)
    }

    /// Returns the texts of a table by their names; absent is empty.
    pub(super) fn texts_by_name(&self, name: &str) -> Result<Vec<(String, String)>, TomlError> {
        let Some(value) = self.member(name) else { return Ok(Vec::new()) };
        let DeValue::Table(table) = value.get_ref() else { return Err(self.wrong(name, value, "map")) };
        let texts = table.iter().map(|(key, item)| match item.get_ref() {
            DeValue::String(text) => Ok((key.get_ref().clone().into_owned(), text.clone().into_owned())),
            _ => Err(self.wrong(name, item, "string")),
        });
        texts.collect()
    }

    /// Reads a table; absent is `None`.
    pub(super) fn table<T, E: From<TomlError>>(
        &self,
        name: &str,
        read: impl FnOnce(Table<'_>) -> Result<T, E>,
    ) -> Result<Option<T>, E> {
        let Some(value) = self.member(name) else { return Ok(None) };
        let DeValue::Table(table) = value.get_ref() else { return Err(self.wrong(name, value, "struct").into()) };
        read(Table { text: self.text, path: &self.below(name), table }).map(Some)
    }

    /// Reads a list of tables; absent is not the same as empty.
    pub(super) fn tables<T, E: From<TomlError>>(
        &self,
        name: &str,
        mut read: impl FnMut(Table<'_>) -> Result<T, E>,
    ) -> Result<Option<Vec<T>>, E> {
        let Some(value) = self.member(name) else { return Ok(None) };
        let DeValue::Array(items) = value.get_ref() else { return Err(self.wrong(name, value, "slice").into()) };
        let path = self.below(name);
        let mut all = Vec::new();
        for item in items.iter() {
            let DeValue::Table(table) = item.get_ref() else { return Err(self.wrong(name, item, "struct").into()) };
            all.push(read(Table { text: self.text, path: &path, table })?);
        }
        Ok(Some(all))
    }

    fn below(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    /// Tells whether a member is there at all.
    pub(super) fn has(&self, name: &str) -> bool {
        self.member(name).is_some()
    }
}
