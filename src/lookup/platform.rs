//! Platforms, and which of them a machine takes, best first, as containers/image walks down from
//! one variant of an architecture to the next. Pure.

use std::fmt;

/// `os/architecture[/variant]`, in Go's words (`linux/amd64`, `linux/arm/v7`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Platform {
    /// The operating system.
    pub os: String,
    /// The architecture.
    pub architecture: String,
    /// The variant of the architecture; empty when none is stated.
    pub variant: String,
}

/// A text is no platform.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no platform; write os/architecture or os/architecture/variant, as linux/arm64 or linux/arm/v7")]
pub struct PlatformError(String);

/// The variants that a machine of an architecture may run, the most capable first; whoever runs one
/// runs all behind it.
fn variants(architecture: &str) -> &'static [&'static str] {
    match architecture {
        "arm" => &["v8", "v7", "v6", "v5"],
        "arm64" => &["v8"],
        _ => &[],
    }
}

impl Platform {
    /// Parses `os/architecture[/variant]`.
    ///
    /// # Errors
    /// [`PlatformError`] for fewer or more parts, or an empty one.
    pub fn parse(text: &str) -> Result<Self, PlatformError> {
        let parts: Vec<&str> = text.split('/').collect();
        let (os, architecture, variant) = match parts.as_slice() {
            [os, architecture] => (*os, *architecture, None),
            [os, architecture, variant] => (*os, *architecture, Some(*variant)),
            _ => return Err(PlatformError(text.to_owned())),
        };
        if os.is_empty() || architecture.is_empty() || variant == Some("") {
            return Err(PlatformError(text.to_owned()));
        }
        let (os, architecture) = (os.to_owned(), architecture.to_owned());
        Ok(Self { os, architecture, variant: variant.unwrap_or_default().to_owned() })
    }

    /// The platform of pulls on this machine: linux, and the architecture that this program was
    /// built for. `cpuinfo` is the text of `/proc/cpuinfo`, which tells ARM's variants apart.
    pub fn of_machine(cpuinfo: &str) -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "x86" => "386",
            "aarch64" => "arm64",
            "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
            "powerpc64" => "ppc64",
            "loongarch64" => "loong64",
            other => other,
        };
        let variant = if matches!(architecture, "arm" | "arm64") { arm_variant(cpuinfo) } else { "" };
        Self { os: "linux".to_owned(), architecture: architecture.to_owned(), variant: variant.to_owned() }
    }

    /// Lists the platforms that will do, best first. With a variant: it and the lesser ones, then
    /// none; without: none stated, then any known one.
    pub fn wanted(&self) -> Vec<Self> {
        let known = variants(&self.architecture);
        let list: Vec<&str> = if self.variant.is_empty() {
            std::iter::once("").chain(known.iter().copied()).collect()
        } else {
            let lesser: Vec<&str> = known.iter().copied().skip_while(|known| *known != self.variant).collect();
            let own = if lesser.is_empty() { vec![self.variant.as_str()] } else { lesser };
            own.into_iter().chain([""]).collect()
        };
        let with = |variant: &str| Self { variant: variant.to_owned(), ..self.clone() };
        list.into_iter().map(with).collect()
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if self.variant.is_empty() { Ok(()) } else { write!(f, "/{}", self.variant) }
    }
}

/// What the kernel calls the architecture of the first core, in Docker's words.
fn arm_variant(cpuinfo: &str) -> &'static str {
    let field = |name: &str| {
        cpuinfo.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.trim().eq_ignore_ascii_case(name).then(|| value.trim().to_ascii_lowercase())
        })
    };
    match field("cpu architecture").unwrap_or_default().as_str() {
        "8" | "aarch64" => "v8",
        // A Raspberry Pi Zero says 7 and is 6.
        "7" => match field("model name") {
            Some(model) if model.starts_with("armv6-compatible") => "v6",
            Some(_) => "v7",
            None => "",
        },
        "7m" | "?(12)" | "?(13)" | "?(14)" | "?(15)" | "?(16)" | "?(17)" => "v7",
        "6" | "6tej" => "v6",
        "5" | "5t" | "5te" | "5tej" => "v5",
        "4" | "4t" => "v4",
        "3" => "v3",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(text: &str) -> Vec<String> {
        Platform::parse(text).unwrap().wanted().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn variants_are_walked_down() {
        assert_eq!(wanted("linux/amd64"), ["linux/amd64"]);
        assert_eq!(wanted("linux/amd64/v3"), ["linux/amd64/v3", "linux/amd64"]);
        assert_eq!(wanted("linux/arm64"), ["linux/arm64", "linux/arm64/v8"]);
        assert_eq!(wanted("linux/arm64/v8"), ["linux/arm64/v8", "linux/arm64"]);
        assert_eq!(wanted("linux/arm/v6"), ["linux/arm/v6", "linux/arm/v5", "linux/arm"]);
        assert_eq!(wanted("linux/arm"), ["linux/arm", "linux/arm/v8", "linux/arm/v7", "linux/arm/v6", "linux/arm/v5"]);
        assert_eq!(wanted("linux/arm/v9"), ["linux/arm/v9", "linux/arm"]);
    }

    #[test]
    fn what_is_a_platform() {
        for wrong in ["", "linux", "linux/", "/amd64", "linux/arm/", "linux/arm/v7/x"] {
            assert!(Platform::parse(wrong).is_err(), "{wrong}");
        }
        assert_eq!(Platform::of_machine("").os, "linux");
    }

    #[test]
    fn arm_says_which_it_is() {
        assert_eq!(arm_variant("processor : 0\nCPU architecture: 8\n\nCPU architecture: 7\n"), "v8");
        assert_eq!(arm_variant("model name\t: ARMv6-compatible processor\nCPU architecture: 7\n"), "v6");
        assert_eq!(arm_variant("model name\t: ARMv7 Processor\nCPU architecture: 7\n"), "v7");
        assert_eq!(arm_variant("CPU architecture: 7\n"), "");
        assert_eq!(arm_variant("flags: fpu\n"), "");
    }
}
