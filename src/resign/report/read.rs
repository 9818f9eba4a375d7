//! Reading a report in JSON back, item by item: no more than one of them is in memory, and none
//! may be larger than a journal's line.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;
use std::rc::Rc;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::{FORMAT, Head, Item, ReportError};

/// The most bytes before the items: the rules of the job are among them.
const HEAD_LIMIT: u64 = 8 * 1024 * 1024;
/// The most bytes of an item.
const ITEM_LIMIT: u64 = 1024 * 1024;

type OnHead<'a> = &'a mut dyn FnMut(Head) -> Result<(), ReportError>;
type OnItem<'a> = &'a mut dyn FnMut(Item) -> Result<(), ReportError>;

/// Reads a report, handing over its head and then each item.
///
/// # Errors
/// [`ReportError`] of reading, or the first one that `on_head` or `on_item` returns.
pub fn read(path: &Path, on_head: OnHead<'_>, on_item: OnItem<'_>) -> Result<(), ReportError> {
    let file = File::open(path).map_err(|source| ReportError::Io { path: path.to_owned(), source })?;
    read_from(path, BufReader::new(file), on_head, on_item)
}

/// Reads only what stands before the items.
///
/// # Errors
/// [`ReportError`].
pub fn read_head(path: &Path) -> Result<Head, ReportError> {
    let mut found = None;
    let mut on_head = |head| {
        found = Some(head);
        Err(ReportError::Stopped)
    };
    match read(path, &mut on_head, &mut |_| Ok(())) {
        Ok(()) | Err(ReportError::Stopped) => {
            let none = || ReportError::Form { path: path.to_owned(), reason: "it has no items".to_owned() };
            found.ok_or_else(none)
        }
        Err(error) => Err(error),
    }
}

fn read_from(path: &Path, source: impl Read, on_head: OnHead<'_>, on_item: OnItem<'_>) -> Result<(), ReportError> {
    let budget = Rc::new(Cell::new(HEAD_LIMIT));
    // What a reader of items said; serde carries only texts.
    let stopped = RefCell::new(None);
    let mut deserializer = serde_json::Deserializer::from_reader(Limited { source, budget: budget.clone() });
    let report = ReportVisitor { budget: &budget, on_head, on_item, stopped: &stopped };
    let outcome = deserializer.deserialize_map(report).and_then(|()| deserializer.end());
    match (stopped.take(), outcome) {
        (Some(error), _) => Err(error),
        (None, Ok(())) => Ok(()),
        (None, Err(e)) => Err(ReportError::Form { path: path.to_owned(), reason: e.to_string() }),
    }
}

/// Gives no more bytes than are granted.
struct Limited<R> {
    source: R,
    budget: Rc<Cell<u64>>,
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.budget.get()).unwrap_or(usize::MAX).min(buffer.len());
        if most == 0 && !buffer.is_empty() {
            return Err(io::Error::other(format!(
                "its head has more than {HEAD_LIMIT} bytes, or an item {ITEM_LIMIT}"
            )));
        }
        let length = self.source.read(buffer.get_mut(..most).unwrap_or_default())?;
        self.budget.set(self.budget.get().saturating_sub(length as u64));
        Ok(length)
    }
}

struct ReportVisitor<'a> {
    budget: &'a Cell<u64>,
    on_head: OnHead<'a>,
    on_item: OnItem<'a>,
    stopped: &'a RefCell<Option<ReportError>>,
}

impl<'de> Visitor<'de> for ReportVisitor<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object whose first member is report")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<(), M::Error> {
        let first = map.next_entry::<String, Value>()?;
        match &first {
            Some((key, Value::String(format))) if key == "report" && format == FORMAT => {}
            Some((key, format)) if key == "report" => {
                return Err(M::Error::custom(format!("its format is {format}, not {FORMAT:?}")));
            }
            _ => return Err(M::Error::custom("its first member is not report")),
        }
        let mut head = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            if key != "items" {
                let value = map.next_value::<Value>()?;
                if key == "report" || head.insert(key.clone(), value).is_some() {
                    return Err(M::Error::custom(format!("its member {key:?} is there twice")));
                }
                continue;
            }
            let head: Head = serde_json::from_value(Value::Object(head)).map_err(M::Error::custom)?;
            if let Err(error) = (self.on_head)(head) {
                *self.stopped.borrow_mut() = Some(error);
                return Err(M::Error::custom("stopped"));
            }
            let items = ItemsSeed { budget: self.budget, on_item: self.on_item, stopped: self.stopped };
            map.next_value_seed(items)?;
            return match map.next_key::<String>()? {
                None => Ok(()),
                Some(key) => Err(M::Error::custom(format!("its member {key:?} comes after the items"))),
            };
        }
        Err(M::Error::custom("it has no items"))
    }
}

struct ItemsSeed<'a> {
    budget: &'a Cell<u64>,
    on_item: OnItem<'a>,
    stopped: &'a RefCell<Option<ReportError>>,
}

impl<'de> DeserializeSeed<'de> for ItemsSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for ItemsSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of items")
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut items: S) -> Result<(), S::Error> {
        self.budget.set(ITEM_LIMIT);
        while let Some(item) = items.next_element::<Item>()? {
            if let Err(error) = (self.on_item)(item) {
                *self.stopped.borrow_mut() = Some(error);
                return Err(S::Error::custom("stopped"));
            }
            self.budget.set(ITEM_LIMIT);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::ReportForm;
    use super::super::testing::{head_of, items};
    use super::super::write::render;
    use super::*;

    fn back(text: &[u8]) -> Result<(Option<Head>, Vec<Item>), String> {
        let (mut head, mut items) = (None, Vec::new());
        let mut on_head = |h| {
            head = Some(h);
            Ok(())
        };
        let mut on_item = |item| {
            items.push(item);
            Ok(())
        };
        read_from(Path::new("r.json"), text, &mut on_head, &mut on_item).map_err(|e| e.to_string())?;
        Ok((head, items))
    }

    fn written() -> Vec<u8> {
        let mut out = Vec::new();
        render(&mut out, ReportForm::Json, &head_of(&items()), &items()).unwrap();
        out
    }

    #[test]
    fn what_is_written_is_read_back() {
        let (head, found) = back(&written()).unwrap();
        assert_eq!(head.unwrap(), head_of(&items()));
        assert_eq!(found, items());
        let mut empty = Vec::new();
        render(&mut empty, ReportForm::Json, &head_of(&Vec::new()), &Vec::new()).unwrap();
        assert!(back(&empty).unwrap().1.is_empty());
    }

    #[test]
    fn what_is_no_report_is_refused() {
        let text = String::from_utf8(written()).unwrap();
        for (broken, said) in [
            ("[]".to_owned(), "an object"),
            ("{}".to_owned(), "first member"),
            (text.replace("resign 1", "resign 2"), "not \"countersign resign 1\""),
            (text.replacen("\"creator\"", "\"dry_run\":false,\"creator\"", 1), "\"dry_run\" is there twice"),
            (text.replacen("\"creator\"", "\"maker\"", 1), "missing field `creator`"),
            (text.trim_end().strip_suffix('}').unwrap().to_owned() + ",\"x\":1}", "comes after the items"),
            (text.clone() + "{}", "trailing"),
            (text.replacen("\"state\":\"signed\"", "\"state\":\"fine\"", 1), "unknown variant"),
            (text.replacen("no rename rule", &"x".repeat(1 << 21), 1), "more than"),
        ] {
            let error = back(broken.as_bytes()).unwrap_err();
            assert!(error.contains(said), "{said}: {error}");
        }
        assert!(back(&written()[..written().len() - 4]).is_err());
    }

    #[test]
    fn a_large_report_is_read_item_by_item() {
        // Endless text: what is not granted is never asked for, what was read is not kept.
        struct Endless {
            start: io::Cursor<Vec<u8>>,
            item: Vec<u8>,
            at: usize,
        }
        impl Read for Endless {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                let length = self.start.read(buffer)?;
                if length > 0 {
                    return Ok(length);
                }
                let rest = &self.item[self.at..];
                let length = rest.len().min(buffer.len());
                buffer[..length].copy_from_slice(&rest[..length]);
                self.at = (self.at + length) % self.item.len();
                Ok(length)
            }
        }
        let text = String::from_utf8(written()).unwrap();
        let (start, _) = text.split_once("\"items\":[").unwrap();
        let item = format!("{},", serde_json::to_string(&items()[0]).unwrap()).into_bytes();
        let start = io::Cursor::new(format!("{start}\"items\":[").into_bytes());
        let mut count = 0;
        let mut on_item = |_| {
            count += 1;
            if count == 10_000 { Err(ReportError::Stopped) } else { Ok(()) }
        };
        let outcome = read_from(Path::new("r"), Endless { start, item, at: 0 }, &mut |_| Ok(()), &mut on_item);
        assert!(matches!(outcome, Err(ReportError::Stopped)));
        assert_eq!(count, 10_000);
    }

    proptest::proptest! {
        #[test]
        fn never_panics(at in 0usize..3000, with in ".{0,4}") {
            let mut text = String::from_utf8_lossy(&written()).into_owned();
            let at = (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default();
            text.insert_str(at, &with);
            let _ = back(text.as_bytes());
        }
    }
}
