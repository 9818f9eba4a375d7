//! The rooms of the store: each registry's part of it, with the rules for what lies there.
//!
//! A path belongs to the room with the longest prefix that contains it, else to the default
//! registry's, which is there even without an upstream. Registries that share a prefix share a
//! room; the configuration has seen to it that they have the same rules.

use std::sync::Arc;

use crate::config::SiteConfig;
use crate::server::auth::access_rules::{AccessRules, CredentialFiles};
use crate::server::auth::upstream_login::UpstreamLogin;
use crate::server::auth::upstream_permissions::UpstreamPermissions;
use crate::server::uploads::UploadPipeline;
use crate::server::uploads::lookaside::LookasideUploads;
use crate::store::{Layout, SetAddress, StorePath};

/// One registry's part of the store.
pub(super) struct StoreScope {
    prefix: StorePath,
    pub(super) permit: Arc<AccessRules>,
    pub(super) writes: Arc<LookasideUploads>,
}

/// All rooms.
pub(super) struct StoreScopes {
    /// Longest prefix first.
    store_scopes: Vec<StoreScope>,
    default: StoreScope,
    open: bool,
}

/// What a room is made of.
pub(super) struct StoreScopePlan {
    pub(super) site: SiteConfig,
    pub(super) admission: Arc<UploadPipeline>,
    /// Whom the way `upstream` asks, if the registry has an upstream.
    pub(super) upstream: Option<(Arc<UpstreamPermissions>, UpstreamLogin)>,
}

impl StoreScopes {
    /// Makes the rooms of all registries. Of those that share one, the first that has an upstream
    /// is asked for rights.
    pub(super) fn new(default: StoreScopePlan, named: Vec<StoreScopePlan>) -> Self {
        let mut files = CredentialFiles::default();
        let mut plans = vec![default];
        for plan in named {
            let shared = |one: &&mut StoreScopePlan| one.site.settings.store_prefix == plan.site.settings.store_prefix;
            match plans.iter_mut().find(shared) {
                Some(one) => one.upstream = one.upstream.take().or(plan.upstream),
                None => plans.push(plan),
            }
        }
        let mut store_scopes = plans.into_iter().map(|plan| StoreScope::new(plan, &mut files)).collect::<Vec<_>>();
        let default = store_scopes.remove(0);
        store_scopes.sort_by_key(|store_scope| std::cmp::Reverse(store_scope.prefix.as_str().len()));
        let open = std::iter::once(&default).chain(&store_scopes).all(|store_scope| store_scope.permit.is_open());
        Self { store_scopes, default, open }
    }

    /// Finds the room of a path.
    pub(super) fn of(&self, path: &StorePath) -> &StoreScope {
        // The default's prefix may be longer than another that contains the path, too.
        let length = |store_scope: &StoreScope| store_scope.prefix.as_str().len();
        let named = self.store_scopes.iter().find(|store_scope| path.is_within(&store_scope.prefix));
        match named {
            Some(store_scope)
                if !path.is_within(&self.default.prefix) || length(store_scope) > length(&self.default) =>
            {
                store_scope
            }
            _ => &self.default,
        }
    }

    /// Returns the room of what is no path of the store.
    pub(super) fn default(&self) -> &StoreScope {
        &self.default
    }

    /// Tells whether there is no other room than the default one.
    pub(super) fn is_one(&self) -> bool {
        self.store_scopes.is_empty()
    }

    /// Tells whether anybody may read all that may be shown at an address; a release address shows
    /// what lies below it, too.
    pub(super) fn is_open_at(&self, set: &SetAddress) -> bool {
        self.open || (set.layout() == Layout::Image && self.of(set.path()).permit.is_open_at(set))
    }
}

impl StoreScope {
    fn new(plan: StoreScopePlan, files: &mut CredentialFiles) -> Self {
        let settings = &plan.site.settings;
        let permit = Arc::new(AccessRules::new(settings, plan.upstream, files));
        let writes = Arc::new(LookasideUploads::new(plan.admission, permit.clone()));
        Self { prefix: settings.store_prefix.clone(), permit, writes }
    }

    /// Returns what its keys begin with.
    pub(super) fn prefix(&self) -> &StorePath {
        &self.prefix
    }
}
