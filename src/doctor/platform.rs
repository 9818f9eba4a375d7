//! Which member of a list a client takes on this host (spec containers-image 7): the first that fits
//! the first wanted platform, and else the first that says nothing of its platform.

use std::fmt;

use crate::image::Instance;

/// A text that is no platform.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("platform {0:?} is not of the form OS/ARCHITECTURE or OS/ARCHITECTURE/VARIANT, such as linux/amd64")]
pub struct PlatformError(String);

/// An operating system and a processor, in Go's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Platform {
    /// `linux`.
    pub os: String,
    /// `amd64`.
    pub architecture: String,
    /// `v7`; empty for most.
    pub variant: String,
}

impl Platform {
    /// Parses `OS/ARCHITECTURE[/VARIANT]`.
    ///
    /// # Errors
    /// [`PlatformError`].
    pub fn parse(text: &str) -> Result<Self, PlatformError> {
        let parts: Vec<&str> = text.split('/').collect();
        let (os, architecture, variant) = match parts.as_slice() {
            [os, architecture] => (os, architecture, &""),
            [os, architecture, variant] if !variant.is_empty() => (os, architecture, variant),
            _ => return Err(PlatformError(text.to_owned())),
        };
        if os.is_empty() || architecture.is_empty() {
            return Err(PlatformError(text.to_owned()));
        }
        Ok(Self { os: (*os).to_owned(), architecture: (*architecture).to_owned(), variant: (*variant).to_owned() })
    }

    /// This host's.
    pub fn of_host() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "x86" => "386",
            "aarch64" => "arm64",
            "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
            "powerpc64" => "ppc64",
            "loongarch64" => "loong64",
            other => other,
        };
        // Clients find out an ARM's generation; these are the usual ones.
        let variant = match architecture {
            "arm64" => "v8",
            "arm" => "v7",
            _ => "",
        };
        let os = if std::env::consts::OS == "macos" { "darwin" } else { std::env::consts::OS };
        Self { os: os.to_owned(), architecture: architecture.to_owned(), variant: variant.to_owned() }
    }

    /// Lists what is looked for, best first: an ARM runs the code of older ones, too.
    fn wanted(&self) -> Vec<Self> {
        let order: &[&str] = match self.architecture.as_str() {
            "arm" => &["v8", "v7", "v6", "v5"],
            "arm64" => &["v8"],
            _ => &[],
        };
        let older = order.iter().position(|variant| *variant == self.variant);
        let mut variants: Vec<&str> = match older {
            Some(at) => order.get(at..).unwrap_or_default().to_vec(),
            None if self.variant.is_empty() => Vec::new(),
            None => vec![&self.variant],
        };
        variants.push("");
        variants.into_iter().map(|variant| Self { variant: variant.to_owned(), ..self.clone() }).collect()
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if self.variant.is_empty() { Ok(()) } else { write!(f, "/{}", self.variant) }
    }
}

/// Chooses a member of a list.
pub fn choose<'a>(instances: &'a [Instance], platform: &Platform) -> Option<&'a Instance> {
    let wanted = platform.wanted();
    let fitting = wanted.iter().find_map(|wanted| {
        let wanted = wanted.to_string();
        instances.iter().find(|instance| instance.platform == wanted)
    });
    fitting.or_else(|| instances.iter().find(|instance| instance.platform.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Digest;

    fn chosen(members: &[&str], platform: &str) -> Option<usize> {
        let instance = |name: &&str| Instance { digest: Digest::sha256(name.as_bytes()), platform: (*name).to_owned() };
        let instances: Vec<_> = members.iter().map(instance).collect();
        let found = choose(&instances, &Platform::parse(platform).unwrap())?;
        instances.iter().position(|instance| instance == found)
    }

    #[test]
    fn the_best_that_fits() {
        let members = ["linux/arm64", "linux/amd64", "linux/arm/v6", "linux/arm/v7", "linux/arm", "windows/amd64"];
        for (platform, expected) in [
            ("linux/amd64", Some(1)),
            ("windows/amd64", Some(5)),
            ("linux/arm64/v8", Some(0)),
            ("linux/arm/v8", Some(3)),
            ("linux/arm/v6", Some(2)),
            ("linux/arm/v5", Some(4)),
            ("linux/amd64/v3", Some(1)),
            ("linux/s390x", None),
            ("darwin/arm64", None),
        ] {
            assert_eq!(chosen(&members, platform), expected, "{platform}");
        }
        assert_eq!(chosen(&["linux/arm64", "", "linux/amd64"], "linux/amd64"), Some(2));
        assert_eq!(chosen(&["linux/arm64", ""], "linux/amd64"), Some(1), "one that says nothing will do");
        assert_eq!(chosen(&[], "linux/amd64"), None);
    }

    #[test]
    fn texts() {
        assert_eq!(Platform::parse("linux/arm/v7").unwrap().to_string(), "linux/arm/v7");
        for bad in ["", "linux", "linux/", "/amd64", "linux/arm/", "a/b/c/d"] {
            assert!(Platform::parse(bad).is_err(), "{bad}");
        }
        assert!(Platform::parse(&Platform::of_host().to_string()).is_ok());
    }
}
