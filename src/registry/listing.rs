//! Lists that come in pages: the tags of a repository, the repositories of a registry.

use http::header::LINK;
use http::{Method, StatusCode};
use serde::Deserialize;
use url::Url;

use crate::image::{Repository, Tag};

use super::client::{Call, RegistryClient, Scope};
use super::error::{CallError, Refusal, RegistryError, tame};
use super::fetch::Answer;

/// The largest page. Registries without paging send everything at once.
const PAGE_LIMIT: usize = 16 * 1024 * 1024;
/// The most entries that are taken together; more is an endless list.
const ENTRY_LIMIT: usize = 2_000_000;
/// How many repositories are asked for at once, since some registries cap the list otherwise.
const CATALOG_PAGE: usize = 1000;

#[derive(Deserialize)]
struct TagPage {
    tags: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct CatalogPage {
    repositories: Option<Vec<String>>,
}

impl RegistryClient {
    /// Lists the tags of a repository, in the registry's order, through all pages. Names that
    /// are no tags are left out with a warning, as in containers/image.
    ///
    /// # Errors
    /// [`RegistryError`], also when the pages run in a circle or never end.
    pub async fn tags(&self, repository: &Repository) -> Result<Vec<Tag>, RegistryError> {
        let start = format!("/v2/{}/tags/list", repository.path());
        let what = format!("tags of {repository}");
        let names = self
            .pages(&what, Scope::Pull(repository), start, |body| {
                serde_json::from_slice::<TagPage>(body).map(|page| page.tags.unwrap_or_default())
            })
            .await?;
        let tags = names.into_iter().filter_map(|name| match Tag::parse(&name) {
            Ok(tag) => Some(tag),
            Err(_) => {
                tracing::warn!(%repository, name = tame(&name), "the registry returned an invalid tag");
                None
            }
        });
        Ok(tags.collect())
    }

    /// Lists the repositories of a registry through all pages. Many public registries refuse this.
    ///
    /// # Errors
    /// As [`RegistryClient::tags`].
    pub async fn catalog(&self, registry: &str) -> Result<Vec<Repository>, RegistryError> {
        let what = format!("repositories of {registry}");
        let start = format!("/v2/_catalog?n={CATALOG_PAGE}");
        let names = self
            .pages(&what, Scope::Catalog(registry), start, |body| {
                serde_json::from_slice::<CatalogPage>(body).map(|page| page.repositories.unwrap_or_default())
            })
            .await?;
        let repositories =
            names.into_iter().filter_map(|name| match Repository::parse(&format!("{registry}/{name}")) {
                // A registry without dot and port would be taken for a namespace of Docker Hub.
                Ok(repository) if repository.domain() == registry => Some(repository),
                _ => {
                    tracing::warn!(registry, name = tame(&name), "the registry returned an invalid repository name");
                    None
                }
            });
        Ok(repositories.collect())
    }

    async fn pages(
        &self,
        what: &str,
        scope: Scope<'_>,
        start: String,
        names: impl Fn(&[u8]) -> Result<Vec<String>, serde_json::Error>,
    ) -> Result<Vec<String>, RegistryError> {
        let malformed = |reason: String| RegistryError::ListForm { what: what.to_owned(), reason };
        let failed = |source: CallError| RegistryError::List { what: what.to_owned(), source: Box::new(source) };
        let connection = self.connection(scope.registry()).await?;
        let mut all = Vec::new();
        let mut seen = std::collections::HashSet::new();
        let mut next = Some(start);
        while let Some(path) = next {
            let call = Call { method: Method::GET, path: &path, scope, accept: &[], body: None, limit: PAGE_LIMIT };
            let answer = self.call(&connection, &call).await.map_err(failed)?;
            if answer.status != StatusCode::OK {
                return Err(failed(Refusal::of(&answer).into()));
            }
            let page = names(&answer.body).map_err(|e| malformed(format!("the page is not a list: {e}")))?;
            if all.len() + page.len() > ENTRY_LIMIT {
                return Err(malformed(format!("more than {ENTRY_LIMIT} entries")));
            }
            all.extend(page);
            let url = connection.url(&path).map_err(|e| failed(e.into()))?;
            next = link(&url, &answer).map_err(malformed)?;
            if !seen.insert(path) || next.as_ref().is_some_and(|next| seen.contains(next)) {
                return Err(malformed("the pages run in a circle".to_owned()));
            }
        }
        Ok(all)
    }
}

/// The path and query of the next page. The link's host does not count, as in containers/image:
/// behind proxies it is often wrong, and a token must not follow it elsewhere.
fn link(current: &Url, answer: &Answer) -> Result<Option<String>, String> {
    let Some(value) = answer.header(LINK) else { return Ok(None) };
    let Some(target) = next_target(value) else { return Ok(None) };
    let url = current.join(target).map_err(|e| format!("the link to the next page is no URL: {e}"))?;
    Ok(Some(match url.query() {
        Some(query) => format!("{}?{query}", url.path()),
        None => url.path().to_owned(),
    }))
}

/// The target of the link that has `rel="next"`; of one without any `rel`, too.
fn next_target(value: &str) -> Option<&str> {
    let mut rest = value;
    loop {
        let (_, after) = rest.split_once('<')?;
        let (target, after) = after.split_once('>')?;
        let end = after.find('<').unwrap_or(after.len());
        let (parameters, others) = after.split_at_checked(end)?;
        let relation = parameters.split(';').filter_map(|p| p.split_once('=')).find_map(|(name, value)| {
            let value = value.trim().trim_end_matches(',').trim().trim_matches('"');
            name.trim().eq_ignore_ascii_case("rel").then_some(value)
        });
        if relation.is_none_or(|relation| relation.split(' ').any(|word| word.eq_ignore_ascii_case("next"))) {
            return Some(target);
        }
        rest = others;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_next_page() {
        for (value, target) in [
            ("</v2/_catalog?last=b&n=2>; rel=\"next\"", Some("/v2/_catalog?last=b&n=2")),
            ("<x>; rel=prev, <y>; rel=next", Some("y")),
            ("<x>; rel=\"prev\"", None),
            ("<x>", Some("x")),
            ("", None),
            ("<x", None),
            ("x>; rel=next", None),
            ("<a>; title=\"é\"; rel=\"NEXT last\"", Some("a")),
        ] {
            assert_eq!(next_target(value), target, "{value}");
        }
    }

    proptest::proptest! {
        #[test]
        fn never_panics(value in "[<>;,=\" relnxté]{0,40}") {
            let _ = next_target(&value);
        }
    }
}
