//! The rooms of the store: each registry's part of it, with the rules for what lies there.
//!
//! A path belongs to the room with the longest prefix that contains it, else to the default
//! registry's, which is there even without an upstream. Registries that share a prefix share a
//! room; the configuration has seen to it that they have the same rules.

use std::sync::Arc;

use crate::config::SiteConfig;
use crate::server::auth::access_rules::{CredentialFiles, Permit};
use crate::server::auth::upstream_login::Login;
use crate::server::auth::upstream_permissions::Access;
use crate::server::uploads::Admission;
use crate::server::uploads::lookaside::Writes;
use crate::store::{Layout, SetAddress, StorePath};

/// One registry's part of the store.
pub(super) struct Room {
    prefix: StorePath,
    pub(super) permit: Arc<Permit>,
    pub(super) writes: Arc<Writes>,
}

/// All rooms.
pub(super) struct Rooms {
    /// Longest prefix first.
    rooms: Vec<Room>,
    default: Room,
    open: bool,
}

/// What a room is made of.
pub(super) struct Plan {
    pub(super) site: SiteConfig,
    pub(super) admission: Arc<Admission>,
    /// Whom the way `upstream` asks, if the registry has an upstream.
    pub(super) upstream: Option<(Arc<Access>, Login)>,
}

impl Rooms {
    /// Makes the rooms of all registries. Of those that share one, the first that has an upstream
    /// is asked for rights.
    pub(super) fn new(default: Plan, named: Vec<Plan>) -> Self {
        let mut files = CredentialFiles::default();
        let mut plans = vec![default];
        for plan in named {
            let shared = |one: &&mut Plan| one.site.settings.store_prefix == plan.site.settings.store_prefix;
            match plans.iter_mut().find(shared) {
                Some(one) => one.upstream = one.upstream.take().or(plan.upstream),
                None => plans.push(plan),
            }
        }
        let mut rooms = plans.into_iter().map(|plan| Room::new(plan, &mut files)).collect::<Vec<_>>();
        let default = rooms.remove(0);
        rooms.sort_by_key(|room| std::cmp::Reverse(room.prefix.as_str().len()));
        let open = std::iter::once(&default).chain(&rooms).all(|room| room.permit.is_open());
        Self { rooms, default, open }
    }

    /// Finds the room of a path.
    pub(super) fn of(&self, path: &StorePath) -> &Room {
        // The default's prefix may be longer than another that contains the path, too.
        let length = |room: &Room| room.prefix.as_str().len();
        let named = self.rooms.iter().find(|room| path.is_within(&room.prefix));
        match named {
            Some(room) if !path.is_within(&self.default.prefix) || length(room) > length(&self.default) => room,
            _ => &self.default,
        }
    }

    /// Returns the room of what is no path of the store.
    pub(super) fn default(&self) -> &Room {
        &self.default
    }

    /// Tells whether there is no other room than the default one.
    pub(super) fn is_one(&self) -> bool {
        self.rooms.is_empty()
    }

    /// Tells whether anybody may read all that may be shown at an address; a release address shows
    /// what lies below it, too.
    pub(super) fn is_open_at(&self, set: &SetAddress) -> bool {
        self.open || (set.layout() == Layout::Image && self.of(set.path()).permit.is_open_at(set))
    }
}

impl Room {
    fn new(plan: Plan, files: &mut CredentialFiles) -> Self {
        let settings = &plan.site.settings;
        let permit = Arc::new(Permit::new(settings, plan.upstream, files));
        let writes = Arc::new(Writes::new(plan.admission, permit.clone()));
        Self { prefix: settings.store_prefix.clone(), permit, writes }
    }

    /// Returns what its keys begin with.
    pub(super) fn prefix(&self) -> &StorePath {
        &self.prefix
    }
}
