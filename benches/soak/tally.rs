//! How often what was done.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! tally {
    ($($name:ident $text:literal,)*) => {
        /// Counters of what clients did and were told.
        #[derive(Default)]
        pub struct Tally {
            $(pub $name: Count,)*
        }

        impl Tally {
            fn all(&self) -> Vec<(&'static str, u64)> {
                vec![$(($text, self.$name.get()),)*]
            }
        }
    };
}

tally! {
    walks "lookaside walks 1, 2, …, 404",
    lists "extension lists",
    absences "404s and empty lists of unsigned images",
    stored "signatures stored by the lookaside (201)",
    repeated "stored again (204, 201)",
    extended "signatures stored by the extension (201)",
    removed "signatures removed (204)",
    refused "refusals (400, 401, 404, 405, 413)",
    releases "release addresses",
    manifests "manifests",
    uploads "blobs uploaded",
    downloads "blobs downloaded",
    abandoned "clients that hung up in the middle",
    slow "clients that are slow",
}

#[derive(Default)]
pub struct Count(AtomicU64);

impl Count {
    pub fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Tally {
    pub fn sum(&self) -> u64 {
        self.all().iter().map(|(_, count)| count).sum()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.all().iter().try_for_each(|(what, count)| writeln!(f, "  {what:<42} {count:>9}"))
    }
}
