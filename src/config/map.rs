//! Maps of the configuration whose keys mean something: each is read by its own grammar, and none
//! may be there twice, since it would be left open which one counts.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{Error as _, MapAccess, Visitor};

/// Reads a map; `key` reads its keys, and what it returns as an error is the reason.
pub(super) fn read<'de, D, K, V>(
    deserializer: D,
    expected: &'static str,
    key: fn(&str) -> Result<K, String>,
) -> Result<BTreeMap<K, V>, D::Error>
where
    D: serde::Deserializer<'de>,
    K: Ord,
    V: Deserialize<'de>,
{
    deserializer.deserialize_any(Keyed { expected, key, values: PhantomData })
}

struct Keyed<K, V> {
    expected: &'static str,
    key: fn(&str) -> Result<K, String>,
    values: PhantomData<V>,
}

impl<'de, K: Ord, V: Deserialize<'de>> Visitor<'de> for Keyed<K, V> {
    type Value = BTreeMap<K, V>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
        let mut all = BTreeMap::new();
        while let Some(name) = map.next_key::<String>()? {
            let key = (self.key)(&name).map_err(M::Error::custom)?;
            if all.insert(key, map.next_value()?).is_some() {
                return Err(M::Error::custom(format!("{name} is there twice")));
            }
        }
        Ok(all)
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(BTreeMap::new())
    }
}
