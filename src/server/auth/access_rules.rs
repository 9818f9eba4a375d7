//! Who may do what below `/lookaside/`, by the configured ways.
//!
//! A refused reader gets 401 or 403 and never 404, which would tell a client that the image has no
//! signatures (spec containers-image 2.3); and gets it whether there is one or not. Clients send
//! the userinfo of a lookaside's URL as HTTP Basic at once, and keep its query (2.1, 2.2).

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use crate::config::{AccessError, Namespaces, ServerConfig, Way};
use crate::server::auth::credentials::Credentials;
use crate::server::auth::htpasswd::{HtpasswdFile, PasswordChecker};
use crate::server::auth::methods::{
    AccessAttempt, AccessMethod, Anonymous, Certificate, Htpasswd, Identity, Token, UpstreamAccess, UpstreamRegistry,
};
use crate::server::auth::release_queries::QueryBudget;
use crate::server::auth::reloading_file::CredentialsFileError;
use crate::server::auth::token_file::TokenFile;
use crate::server::auth::upstream_login::UpstreamLogin;
use crate::server::auth::upstream_permissions::UpstreamPermissions;
use crate::server::auth::upstream_query::Permission;
use crate::server::error::Problem;
use crate::store::{SetAddress, StorePath};

/// Access rules that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AccessRulesError {
    /// The rules themselves.
    #[error(transparent)]
    Rules(#[from] AccessError),
    /// A file that they name.
    #[error(transparent)]
    File(#[from] CredentialsFileError),
    /// They ask a registry, and there is none.
    #[error("the access rules ask the upstream registry, but none is configured: set `upstream`")]
    NoUpstream,
}

/// What one namespace allows; the methods in the order in which they are tried.
struct Rule {
    read: Vec<Arc<dyn AccessMethod>>,
    write: Vec<Arc<dyn AccessMethod>>,
}

/// The rules at work.
pub(crate) struct AccessRules {
    rules: Namespaces<Rule>,
    prefix: StorePath,
    upstream: Option<UpstreamAccess>,
    checker: Arc<PasswordChecker>,
    open: bool,
    writable: bool,
}

impl AccessRules {
    /// Puts the rules together. Rules that cannot be let nobody do anything; [`check_access`]
    /// finds them before that.
    pub(crate) fn new(
        config: &ServerConfig,
        upstream: Option<(Arc<UpstreamPermissions>, UpstreamLogin)>,
        files: &mut CredentialFiles,
    ) -> Self {
        let configured = config.access.rules().unwrap_or_default();
        let open = configured.iter().all(|rule| rule.read.contains(&Way::Anonymous));
        let writable = configured.iter().any(|rule| !rule.write.is_empty());
        let rules = configured.map(|rule| Rule { read: files.methods(&rule.read), write: files.methods(&rule.write) });
        let checker = files.checker.clone();
        let upstream = upstream.map(|(permissions, login)| UpstreamAccess::new(permissions, login));
        Self { rules, prefix: config.store_prefix.clone(), upstream, checker, open, writable }
    }

    /// Returns the repository that a path of the store belongs to; `None` for what lies beside the
    /// prefix, and so belongs to no registry of this server.
    pub(crate) fn repository<'a>(&self, path: &'a StorePath) -> Option<&'a str> {
        if !path.is_within(&self.prefix) {
            return None;
        }
        let rest = path.as_str().get(self.prefix.as_str().len()..)?;
        Some(rest.strip_prefix('/').unwrap_or(rest))
    }

    /// What lies beside the prefix has the rule of the whole.
    fn rule(&self, path: &StorePath) -> &Rule {
        self.repository(path).map_or_else(|| self.rules.default_rule(), |repository| self.rules.of(repository))
    }

    /// Tells whether anybody may read everything.
    pub(crate) fn is_open(&self) -> bool {
        self.open
    }

    /// Tells whether anybody may read a set.
    pub(crate) fn is_open_at(&self, set: &SetAddress) -> bool {
        self.open || self.rule(set.path()).read.iter().any(|method| method.is_anonymous())
    }

    /// Tells whether there is anything that somebody may write.
    pub(crate) fn is_writable(&self) -> bool {
        self.writable
    }

    /// Agrees to a caller's reading a set.
    ///
    /// # Errors
    /// The refusal, or why nobody can decide.
    pub(crate) async fn read(&self, set: &SetAddress, credentials: Credentials<'_>) -> Result<(), Problem> {
        if self.is_open_at(set) {
            return Ok(());
        }
        self.authenticate(&self.rule(set.path()).read, Permission::Read, set, credentials).await.map(drop)
    }

    /// Tells whether a caller may read a set that is part of what they asked for.
    ///
    /// # Errors
    /// Why nobody can decide: such a set is not to be taken for one that is not there.
    pub(crate) async fn shows(
        &self,
        set: &SetAddress,
        credentials: Credentials<'_>,
        questions: &QueryBudget,
    ) -> Result<bool, Problem> {
        if self.is_open_at(set) {
            return Ok(true);
        }
        match self.authenticate(&self.rule(set.path()).read, Permission::See(questions), set, credentials).await {
            Ok(_) => Ok(true),
            Err(Problem::Unauthorized | Problem::Denied(_)) => Ok(false),
            Err(problem) => Err(problem),
        }
    }

    /// Agrees to a caller's writing to a set, and names them.
    ///
    /// # Errors
    /// The refusal, or why nobody can decide.
    pub(crate) async fn write(&self, set: &SetAddress, credentials: Credentials<'_>) -> Result<Identity, Problem> {
        let methods = &self.rule(set.path()).write;
        if methods.is_empty() {
            return Err(Problem::Denied(
                "nobody may write here over HTTP; the server's configuration names writers under access: write:"
                    .to_owned(),
            ));
        }
        let identity = self.authenticate(methods, Permission::Write, set, credentials).await?;
        if self.repository(set.path()).is_none() {
            return Err(Problem::Denied(format!(
                "the path does not begin with {}/, the store prefix of this server's registry",
                self.prefix
            )));
        }
        Ok(identity)
    }

    async fn authenticate(
        &self,
        methods: &[Arc<dyn AccessMethod>],
        permission: Permission<'_>,
        set: &SetAddress,
        credentials: Credentials<'_>,
    ) -> Result<Identity, Problem> {
        let tokens = if methods.iter().any(|method| method.reads_tokens()) { credentials.tokens() } else { Vec::new() };
        let attempt = AccessAttempt {
            permission,
            set,
            repository: self.repository(set.path()),
            credentials,
            basic: credentials.basic(),
            tokens,
            checker: &self.checker,
            upstream: self.upstream.as_ref(),
        };
        for method in methods {
            if let Some(identity) = method.authenticate(&attempt).await? {
                return Ok(identity);
            }
        }
        if attempt.basic.is_none() {
            for token in &attempt.tokens {
                // An attempt that is dropped counts as wrong credentials.
                drop(self.checker.begin(credentials.caller.from, "", token.as_bytes()).await);
            }
        }
        // 401 asks for a password. Where no password helps, nothing that a client can add later does.
        if methods.iter().any(|method| method.takes_passwords()) {
            return Err(Problem::Unauthorized);
        }
        Err(Problem::Denied("these signatures are not for everybody; the server's operator gives access".to_owned()))
    }
}

/// What all access rules of one server share: the files that their methods name, each opened once, and the
/// checker of passwords, which counts failures.
#[derive(Default)]
pub(crate) struct CredentialFiles {
    checker: Arc<PasswordChecker>,
    passwords: HashMap<PathBuf, Arc<HtpasswdFile>>,
    tokens: HashMap<PathBuf, Arc<TokenFile>>,
}

impl CredentialFiles {
    /// Returns the configured methods, cheapest first.
    fn methods(&mut self, configured: &[Way]) -> Vec<Arc<dyn AccessMethod>> {
        let mut methods: Vec<Arc<dyn AccessMethod>> = configured
            .iter()
            .map(|way| -> Arc<dyn AccessMethod> {
                match way {
                    Way::Anonymous => Arc::new(Anonymous),
                    Way::Certificate(names) => Arc::new(Certificate::new(names.clone())),
                    Way::Upstream => Arc::new(UpstreamRegistry),
                    Way::Htpasswd(path) => {
                        let file =
                            self.passwords.entry(path.clone()).or_insert_with(|| Arc::new(HtpasswdFile::new(path)));
                        Arc::new(Htpasswd::new(file.clone()))
                    }
                    Way::Token(path) => {
                        let file = self.tokens.entry(path.clone()).or_insert_with(|| Arc::new(TokenFile::new(path)));
                        Arc::new(Token::new(file.clone()))
                    }
                }
            })
            .collect();
        methods.sort_by_key(|method| method.cost());
        methods
    }
}

/// Finds access rules that cannot be used, and reads the files that they name: better at the start
/// than at the first request.
///
/// # Errors
/// [`AccessRulesError`].
pub fn check_access(config: &ServerConfig) -> Result<(), AccessRulesError> {
    let nowhere = config.upstream.is_none() && config.registries.is_empty();
    for site in config.sites() {
        for rule in site.settings.access.rules()?.iter() {
            for way in rule.read.iter().chain(&rule.write) {
                match way {
                    Way::Htpasswd(path) => HtpasswdFile::new(path).check()?,
                    Way::Token(path) => TokenFile::new(path).check()?,
                    Way::Upstream if nowhere => return Err(AccessRulesError::NoUpstream),
                    Way::Anonymous | Way::Certificate(_) | Way::Upstream => {}
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Digest;
    use crate::server::caller::Caller;
    use crate::server::listener::peer::{ClientCertificate, PeerIdentity};
    use crate::server::shown_name::ShownName;
    use http::header::AUTHORIZATION;
    use http::{HeaderValue, Request, request};

    fn set(path: &str) -> SetAddress {
        SetAddress::image(StorePath::parse(path).unwrap(), Digest::sha256(b"x")).unwrap()
    }

    fn head(uri: &str, authorization: Option<&str>, certificate: Option<ClientCertificate>) -> request::Parts {
        let mut request = Request::builder().uri(uri).body(()).unwrap();
        if let Some(value) = authorization {
            request.headers_mut().insert(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
        }
        request.extensions_mut().insert(PeerIdentity { certificate: certificate.map(Arc::new) });
        request.into_parts().0
    }

    fn certificate() -> ClientCertificate {
        ClientCertificate { subject: "CN=ci".to_owned(), sans: vec!["ci.example".to_owned()], sha256: [7; 32] }
    }

    async fn write(permit: &AccessRules, path: &str, head: request::Parts) -> Result<Identity, Problem> {
        let caller = Caller::local(0);
        permit.write(&set(path), Credentials::new(&head, &caller)).await
    }

    fn permit(yaml: &str) -> AccessRules {
        AccessRules::new(&ServerConfig::parse(yaml).unwrap(), None, &mut CredentialFiles::default())
    }

    #[tokio::test]
    async fn certificates_by_name_and_fingerprint() {
        let permit = permit(&format!(
            "access: {{namespaces: {{name: {{write: [{{certificate: [ci.example]}}]}}, print: {{write: [{{certificate: ['sha256:{}']}}]}}, \
             subject: {{write: [{{certificate: ['CN=ci']}}]}}, any: {{write: [certificate]}}, other: {{write: [{{certificate: [x.example]}}]}}}}}}",
            "07".repeat(32)
        ));
        for (path, name) in
            [("name", "ci.example"), ("print", "ci.example"), ("subject", "CN=ci"), ("any", "ci.example")]
        {
            let credential = write(&permit, path, head("/", None, Some(certificate()))).await.unwrap();
            assert_eq!(credential, Identity { way: "certificate", name: ShownName::configured(name) });
            assert!(matches!(write(&permit, path, head("/", None, None)).await, Err(Problem::Denied(_))), "{path}");
        }
        let other = write(&permit, "other", head("/", None, Some(certificate()))).await;
        assert!(matches!(other, Err(Problem::Denied(_))));
        assert!(matches!(write(&permit, "x", head("/", None, Some(certificate()))).await, Err(Problem::Denied(_))));
    }

    #[tokio::test]
    async fn tokens_in_the_query_and_the_header() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("tokens");
        std::fs::write(&file, "ci:a/long+token=here\n").unwrap();
        let permit = permit(&format!("access: {{write: [{{token: {}}}]}}", file.display()));
        for head in [
            head("/?token=a%2Flong%2Btoken%3Dhere", None, None),
            head("/?x=1&token=a/long+token=here", None, None),
            head("/?token=a/long+token=here", Some("Basic !"), None),
            head("/", Some("Bearer a/long+token=here"), None),
            head("/?token=other", Some("bearer a/long+token=here"), None),
        ] {
            let credential = write(&permit, "x", head).await.unwrap();
            assert_eq!((credential.way, credential.name.as_str()), ("token", "ci"));
        }
        for head in [
            head("/", None, None),
            head("/?token=", None, None),
            head("/?Token=a/long+token=here", None, None),
            head("/?token=a/long+token=her", None, None),
            head("/", Some("Basic a/long+token=here"), None),
        ] {
            assert!(matches!(write(&permit, "x", head).await, Err(Problem::Denied(_))));
        }
        std::fs::remove_file(file).unwrap();
        let gone = write(&permit, "x", head("/?token=a/long+token=here", None, None)).await;
        assert!(matches!(gone, Err(Problem::Credentials)), "{gone:?}");
    }

    #[tokio::test]
    async fn namespaces_are_repositories_below_the_prefix() {
        let permit = permit(
            "store_prefix: icr\naccess: {read: [], namespaces: {open: {read: [anonymous], write: [certificate]}}}",
        );
        assert!(permit.is_open_at(&set("icr/open/x")) && !permit.is_open());
        for shut in ["open/x", "icr/opener", "icr", "x"] {
            assert!(!permit.is_open_at(&set(shut)), "{shut}");
        }
        let head = |path| (path, head("/", None, Some(certificate())));
        for (path, allowed) in [head("icr/open"), head("open"), head("icropen")].map(|(p, h)| ((p, h), p == "icr/open"))
        {
            assert_eq!(write(&permit, path.0, path.1).await.is_ok(), allowed);
        }
    }

    #[test]
    fn what_cannot_be_is_found_at_the_start() {
        let error = |yaml: &str| check_access(&ServerConfig::parse(yaml).unwrap()).unwrap_err().to_string();
        insta::assert_snapshot!(error("access: {read: [upstream]}"), @"the access rules ask the upstream registry, but none is configured: set `upstream`");
        insta::assert_snapshot!(error("access: {namespaces: {x: {write: [{htpasswd: /no/such}]}}}"), @"cannot read /no/such: No such file or directory (os error 2)");
        insta::assert_snapshot!(error("registries: {a.io: {access: {read: [{token: /no/such}]}}}"), @"cannot read /no/such: No such file or directory (os error 2)");
        check_access(&ServerConfig::default()).unwrap();
        check_access(&ServerConfig::parse("access: {read: [upstream]}\nregistries: {a.io: }").unwrap()).unwrap();
    }
}
