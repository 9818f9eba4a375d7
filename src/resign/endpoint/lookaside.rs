//! A lookaside on the web: any server to read from, a countersign server to write to.

use std::num::NonZeroU32;
use std::sync::Arc;

use bytes::Bytes;

use super::EndpointError;
use crate::image::Digest;
use crate::registries_d::LookasideBase;
use crate::registry::{Deposit, LookasideError, LookasideReader, RegistryClient, SIGNATURE_LIMIT};
use crate::store::{Layout, SetAddress};

/// A lookaside by its base URL.
#[derive(Clone, Debug)]
pub struct LookasideEnd {
    base: Arc<LookasideBase>,
    web: Arc<Web>,
    jobs: usize,
}

#[derive(Clone, Debug)]
enum Web {
    /// As clients read: with no credentials but those of the URL.
    Reader(LookasideReader),
    /// Uploads have the credentials of the login files, and so have the looks before them.
    Deposit(Deposit),
}

impl LookasideEnd {
    /// Opens a lookaside to read from.
    ///
    /// # Errors
    /// [`EndpointError`] for a base that is no URL, and for certificates that cannot be used.
    pub async fn reader(location: &str, client: &RegistryClient) -> Result<Self, EndpointError> {
        let base = Arc::new(LookasideBase::parse(location)?);
        let reader = client.lookaside_alone(&host_of(&base)).await?;
        Ok(Self { base, web: Arc::new(Web::Reader(reader)), jobs: 1 })
    }

    /// Opens a lookaside to read from and upload to, `jobs` at a time.
    ///
    /// # Errors
    /// As [`LookasideEnd::reader`]; and if credentials would go over plain http.
    pub async fn deposit(location: &str, client: &RegistryClient, jobs: usize) -> Result<Self, EndpointError> {
        let base = Arc::new(LookasideBase::parse(location)?);
        let deposit = client.deposit(location).await?;
        Ok(Self { base, web: Arc::new(Web::Deposit(deposit)), jobs: jobs.max(1) })
    }

    pub(super) fn jobs(&self) -> usize {
        self.jobs
    }

    /// The base without its secrets: a token stands in the query as often as in the userinfo.
    fn shown(&self) -> String {
        let base = self.base.to_string();
        base.split_once('?').map_or(base.as_str(), |(before, _)| before).to_owned()
    }

    fn url(&self, set: &SetAddress, index: NonZeroU32) -> Result<String, EndpointError> {
        self.place_of(set).map_err(|_| EndpointError::NoPlace { place: self.shown(), set: set.to_string() })?;
        Ok(self.base.authorized_url(set.path().as_str(), set.digest(), index))
    }

    /// Every signature as it is, even one that no client would take: each is judged by itself.
    pub(super) async fn signatures(&self, set: &SetAddress) -> Result<Vec<Bytes>, EndpointError> {
        let reader = match self.web.as_ref() {
            Web::Reader(reader) => reader,
            Web::Deposit(deposit) => deposit.reader(),
        };
        let mut found = Vec::new();
        let mut index = NonZeroU32::MIN;
        while let Some(blob) = reader.blob(&self.url(set, index)?).await? {
            found.push(blob);
            if index.get() >= SIGNATURE_LIMIT {
                return Err(LookasideError::TooMany.into());
            }
            index = index.saturating_add(1);
        }
        Ok(found)
    }

    pub(super) async fn append(&self, set: &SetAddress, blob: &Bytes) -> Result<(), EndpointError> {
        let no_place = || EndpointError::NoPlace { place: self.shown(), set: set.to_string() };
        let Web::Deposit(deposit) = self.web.as_ref() else { return Err(no_place()) };
        let first = self.url(set, NonZeroU32::MIN)?;
        deposit.put(&upload_url(&first).ok_or_else(no_place)?, blob).await?;
        Ok(())
    }

    /// Only images have a place: the URLs of release signatures are another face.
    pub(super) fn place_of(&self, set: &SetAddress) -> Result<SetAddress, String> {
        if set.layout() == Layout::Image {
            return Ok(set.clone());
        }
        Err(format!("{set} is laid out for release clients; a lookaside on the web takes images' signatures only"))
    }
}

/// Where a signature is uploaded to, beside `signature-1`.
fn upload_url(first: &str) -> Option<String> {
    let (path, query) = first.split_once('?').map_or((first, None), |(path, query)| (path, Some(query)));
    let folder = path.strip_suffix("signature-1")?;
    Some(format!("{folder}signature-new{}", query.map(|query| format!("?{query}")).unwrap_or_default()))
}

fn host_of(base: &LookasideBase) -> String {
    // The digest does not matter; the host of all URLs is one.
    let url = base.signature_url("x", &Digest::sha256(b""), NonZeroU32::MIN);
    let rest = url.split_once("://").map_or("", |(_, rest)| rest);
    rest.split(['/', '?']).next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::RegistryOptions;
    use crate::store::StorePath;

    #[tokio::test]
    async fn addresses_are_those_of_clients() {
        let client = RegistryClient::new(RegistryOptions::default());
        let base = "https://user:pa%40ss@h.example:8443/base?token=a%2Fb";
        let end = LookasideEnd::reader(base, &client).await.unwrap();
        assert_eq!(host_of(&end.base), "h.example:8443");
        let digest = Digest::sha256(b"x");
        let set = SetAddress::image(StorePath::parse("birds/bluebird").unwrap(), digest.clone()).unwrap();
        let url = end.url(&set, NonZeroU32::MIN).unwrap();
        let key = format!("birds/bluebird@sha256={}", digest.hex());
        assert_eq!(url, format!("https://user:pa%40ss@h.example:8443/base/{key}/signature-1?token=a%2Fb"));
        assert_eq!(
            upload_url(&url).unwrap(),
            format!("https://user:pa%40ss@h.example:8443/base/{key}/signature-new?token=a%2Fb")
        );
        assert!(end.place_of(&set).is_ok());
        let release = SetAddress::release(StorePath::parse("openshift").unwrap(), digest);
        assert!(end.place_of(&release).is_err());
        let error = end.url(&release, NonZeroU32::MIN).unwrap_err().to_string();
        assert!(!error.contains("pa%40ss"), "{error}");
        assert!(LookasideEnd::reader("https:///x", &client).await.is_err());
    }
}
