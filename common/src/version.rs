//! Versions of this product, and which of them understand each other.

use std::fmt;

/// The version of this program.
pub const OWN: &str = env!("CARGO_PKG_VERSION");
/// The oldest agent that a coordinator of this version understands.
pub const OLDEST_AGENT: Version = Version(0, 1, 0);
/// The oldest coordinator that an agent of this version understands.
pub const OLDEST_COORDINATOR: Version = Version(0, 1, 0);

/// `major.minor.patch`; what follows a hyphen or a plus sign does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(u64, u64, u64);

impl Version {
    /// Reads a version; `None` when the text is none.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim().trim_start_matches('v');
        let numbers = text.split(['-', '+']).next()?;
        let mut numbers = numbers.split('.').map(str::parse);
        let mut next = || numbers.next()?.ok();
        let version = Self(next()?, next()?, next()?);
        numbers.next().is_none().then_some(version)
    }

    /// Returns the version of this program.
    pub fn own() -> Self {
        Self::parse(OWN).expect("the package has a version")
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

/// Says that an agent is too old for a coordinator.
pub fn too_old(agent: &str, coordinator: &str, oldest: Version) -> String {
    format!("agent {agent} cannot talk to coordinator {coordinator} (needs {oldest} or newer)")
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("0.1.0", Some(Version(0, 1, 0)))]
    #[case("v1.20.3-rc.1+build", Some(Version(1, 20, 3)))]
    #[case("1.2", None)]
    #[case("1.2.3.4", None)]
    #[case("", None)]
    #[case("latest", None)]
    fn versions_are_read(#[case] text: &str, #[case] expected: Option<Version>) {
        assert_eq!(Version::parse(text), expected);
    }

    #[test]
    fn versions_are_compared_number_by_number() {
        assert!(Version(0, 9, 9) < Version(0, 10, 0));
        assert!(Version::own() >= OLDEST_AGENT && Version::own() >= OLDEST_COORDINATOR);
    }
}
