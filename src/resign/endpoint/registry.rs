//! A registry with the signature extension, or a namespace of one.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::EndpointError;
use crate::image::{Digest, Reference, Repository};
use crate::registry::{RegistryClient, redact_text};
use crate::store::{Layout, SetAddress, StorePath};

/// A registry, or the part of it that a job may touch.
#[derive(Clone, Debug)]
pub struct RegistryEnd {
    client: RegistryClient,
    host: String,
    /// Repositories at or below this path; all if it is empty.
    namespace: StorePath,
    /// Registries that a rename rule speaks of.
    known: BTreeSet<String>,
    jobs: usize,
}

impl RegistryEnd {
    /// Opens `docker://host[:port][/namespace]`. `known` are the registries that signatures are
    /// meant for: what is meant for another of them than this one is not put here. `jobs` is how
    /// many uploads may be under way.
    ///
    /// # Errors
    /// [`EndpointError::Location`]; [`EndpointError::NoExtension`] for a registry that keeps no
    /// signatures.
    pub async fn open(
        location: &str,
        client: RegistryClient,
        known: BTreeSet<String>,
        jobs: usize,
    ) -> Result<Self, EndpointError> {
        // A password that stands there is no part of a name, so it leads here and must not be shown.
        let wrong = || EndpointError::Location(redact_text(location));
        let rest = location.strip_prefix("docker://").ok_or_else(wrong)?.trim_end_matches('/');
        let (host, namespace) = rest.split_once('/').unwrap_or((rest, ""));
        // A made-up repository lets the grammar of names judge both.
        let inside = if namespace.is_empty() { "x/y".to_owned() } else { format!("{namespace}/x") };
        let sample = Repository::parse(&format!("{host}/{inside}")).map_err(|_| wrong())?;
        if sample.domain() != host || sample.path() != inside {
            return Err(wrong());
        }
        let namespace = StorePath::parse(namespace).map_err(|_| wrong())?;
        if !client.supports_signatures(host).await? {
            return Err(EndpointError::NoExtension(host.to_owned()));
        }
        Ok(Self { client, host: host.to_owned(), namespace, known, jobs: jobs.max(1) })
    }

    /// `host` or `host:port`.
    pub fn host(&self) -> &str {
        &self.host
    }

    pub(super) fn jobs(&self) -> usize {
        self.jobs
    }

    pub(super) fn client(&self) -> &RegistryClient {
        &self.client
    }

    /// Tells whether a repository is of the part that the job may touch.
    pub(super) fn has(&self, path: &StorePath) -> bool {
        path.is_within(&self.namespace)
    }

    /// `docker://host[/namespace]`.
    pub(super) fn shown(&self) -> String {
        let slash = if self.namespace.is_empty() { "" } else { "/" };
        format!("docker://{}{slash}{}", self.host, self.namespace)
    }

    fn repository(&self, set: &SetAddress) -> Result<Repository, EndpointError> {
        let no_place = || EndpointError::NoPlace { place: self.shown(), set: set.to_string() };
        if set.layout() != Layout::Image || !self.has(set.path()) {
            return Err(no_place());
        }
        let name = format!("{}/{}", self.host, set.path());
        Repository::parse(&name).ok().filter(|repository| repository.as_str() == name).ok_or_else(no_place)
    }

    pub(super) async fn signatures(&self, set: &SetAddress) -> Result<Vec<Bytes>, EndpointError> {
        Ok(self.client.signatures(&self.repository(set)?, set.digest()).await?)
    }

    pub(super) async fn append(&self, set: &SetAddress, blob: &Bytes) -> Result<(), EndpointError> {
        self.client.put_signature(&self.repository(set)?, set.digest(), blob).await?;
        Ok(())
    }

    /// A registry has a name's signatures at the name's own path, wherever the old ones lay.
    pub(super) fn place_of(&self, new: &Reference, digest: &Digest) -> Result<SetAddress, String> {
        let domain = new.repository().domain();
        if domain != self.host && self.known.contains(&self.host) {
            return Err(format!("{new} is of the registry {domain}, not of {}", self.host));
        }
        let path = StorePath::parse(new.repository().path()).map_err(|e| e.to_string())?;
        if !self.has(&path) {
            return Err(format!("{new} is outside of {}", self.shown()));
        }
        SetAddress::image(path, digest.clone()).map_err(|e| e.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::RegistryOptions;

    fn end(host: &str, namespace: &str, known: &[&str]) -> RegistryEnd {
        RegistryEnd {
            client: RegistryClient::new(RegistryOptions::default()),
            host: host.to_owned(),
            namespace: StorePath::parse(namespace).unwrap(),
            known: known.iter().map(|host| (*host).to_owned()).collect(),
            jobs: 1,
        }
    }

    #[test]
    fn a_place_is_the_new_names_own_path_within_the_limits() {
        let digest = Digest::sha256(b"x");
        let place = |end: &RegistryEnd, name: &str| {
            end.place_of(&Reference::parse(name).unwrap(), &digest).map(|set| set.path().to_string())
        };
        let all = end("us.icr.io", "", &["icr.io", "us.icr.io"]);
        assert_eq!(place(&all, "us.icr.io/birds/bluebird:1"), Ok("birds/bluebird".to_owned()));
        let error = place(&all, "icr.io/birds/bluebird:1").unwrap_err();
        assert_eq!(error, "icr.io/birds/bluebird:1 is of the registry icr.io, not of us.icr.io");
        let alias = end("10.0.0.1:5000", "birds", &["icr.io"]);
        assert_eq!(place(&alias, "icr.io/birds:1"), Ok("birds".to_owned()));
        assert_eq!(place(&alias, "icr.io/birds/a/b:1"), Ok("birds/a/b".to_owned()));
        let error = place(&alias, "icr.io/birdsong/a:1").unwrap_err();
        assert_eq!(error, "icr.io/birdsong/a:1 is outside of docker://10.0.0.1:5000/birds");
    }

    #[test]
    fn no_address_leaves_the_namespace() {
        let digest = Digest::sha256(b"x");
        let end = end("r.example:5000", "birds", &[]);
        let set = |path: &str| SetAddress::image(StorePath::parse(path).unwrap(), digest.clone()).unwrap();
        assert_eq!(end.repository(&set("birds/a")).unwrap().as_str(), "r.example:5000/birds/a");
        for wrong in
            [set("other/a"), set("birds/A"), SetAddress::release(StorePath::parse("birds").unwrap(), digest.clone())]
        {
            assert!(end.repository(&wrong).is_err(), "{wrong}");
        }
    }

    #[tokio::test]
    async fn locations_are_judged_before_anything_is_asked() {
        for wrong in
            ["docker://", "docker:///x", "docker://host/UPPER", "docker://nohost/x", "docker://h.x/a:tag", "h.x"]
        {
            let client = RegistryClient::new(RegistryOptions::default());
            let error = RegistryEnd::open(wrong, client, BTreeSet::new(), 1).await.unwrap_err();
            assert!(matches!(error, EndpointError::Location(_)), "{wrong}: {error}");
        }
    }
}
