//! Every label and all values that it can have.

/// One label: a key, and values that are known at compile time.
pub trait Label: Copy + 'static {
    /// The label's name.
    const KEY: &'static str;
    /// Every value, in order of its index.
    const ALL: &'static [Self];
    /// Returns the place in [`Label::ALL`].
    fn index(self) -> usize;
    /// Returns the value as it is written.
    fn value(self) -> &'static str;
}

/// The labels of a family: none, one or several.
pub trait Labels: Copy + 'static {
    /// How many combinations there are.
    const COUNT: usize;
    /// Returns the place among all combinations.
    fn place(self) -> usize;
    /// Calls `see` with the labels of each combination, in order of their places.
    fn each(see: impl FnMut(Self, &[(&str, &str)]));
}

/// No label at all.
#[derive(Clone, Copy, Debug)]
pub struct Nothing;

impl Labels for Nothing {
    const COUNT: usize = 1;

    fn place(self) -> usize {
        0
    }

    fn each(mut see: impl FnMut(Self, &[(&str, &str)])) {
        see(Self, &[]);
    }
}

impl<A: Label> Labels for A {
    const COUNT: usize = A::ALL.len();

    fn place(self) -> usize {
        self.index()
    }

    fn each(mut see: impl FnMut(Self, &[(&str, &str)])) {
        A::ALL.iter().for_each(|a| see(*a, &[(A::KEY, a.value())]));
    }
}

impl<A: Label, B: Label> Labels for (A, B) {
    const COUNT: usize = A::ALL.len() * B::ALL.len();

    fn place(self) -> usize {
        self.0.index() * B::ALL.len() + self.1.index()
    }

    fn each(mut see: impl FnMut(Self, &[(&str, &str)])) {
        for a in A::ALL {
            B::ALL.iter().for_each(|b| see((*a, *b), &[(A::KEY, a.value()), (B::KEY, b.value())]));
        }
    }
}

impl Labels for (Face, MethodClass, Outcome) {
    const COUNT: usize = <(Face, MethodClass)>::COUNT * Outcome::ALL.len();

    fn place(self) -> usize {
        (self.0, self.1).place() * Outcome::ALL.len() + self.2.index()
    }

    fn each(mut see: impl FnMut(Self, &[(&str, &str)])) {
        <(Face, MethodClass)>::each(|(face, method), labels| {
            for outcome in Outcome::ALL {
                let own = [(Outcome::KEY, outcome.value()), ("status", outcome.status())];
                see((face, method, *outcome), &[labels, &own].concat());
            }
        });
    }
}

macro_rules! label {
    ($(#[$doc:meta])* $name:ident $key:literal { $($(#[$value_doc:meta])* $value:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$value_doc])* $value,)+ }

        impl Label for $name {
            const KEY: &'static str = $key;
            const ALL: &'static [Self] = &[$(Self::$value),+];

            fn index(self) -> usize {
                self as usize
            }

            fn value(self) -> &'static str {
                match self { $(Self::$value => $text,)+ }
            }
        }
    };
}

label! {
    /// The part of the server that answers.
    Face "face" {
        /// `/lookaside/…@…/signature-N`.
        Lookaside = "lookaside",
        /// The signature extension of the registry.
        Extension = "extension",
        /// The release layout, `/lookaside/…/sha256=…/signature-N`.
        Release = "release",
        /// The registry behind us.
        Proxy = "proxy",
        /// The page at `/`.
        Page = "page",
        /// The upstream's token endpoint.
        Token = "token",
        /// What is none of these: mostly what scanners ask for.
        Other = "other",
    }
}

label! {
    /// What a method does.
    MethodClass "method" {
        /// GET and HEAD.
        Read = "read",
        /// PUT, POST, PATCH and MKCOL.
        Write = "write",
        /// DELETE.
        Delete = "delete",
        /// Any other.
        Other = "other",
    }
}

impl MethodClass {
    /// Returns the class of a method.
    pub fn of(method: &str) -> Self {
        match method {
            "GET" | "HEAD" => Self::Read,
            "PUT" | "POST" | "PATCH" | "MKCOL" => Self::Write,
            "DELETE" => Self::Delete,
            _ => Self::Other,
        }
    }
}

label! {
    /// How a request ended. Each belongs to one class of statuses.
    Outcome "outcome" {
        /// 2xx.
        Ok = "ok",
        /// 3xx, also "not modified".
        Redirected = "redirected",
        /// 404: no such signature, manifest or address.
        NotFound = "not_found",
        /// 401.
        Unauthorized = "unauthorized",
        /// 403.
        Denied = "denied",
        /// 429.
        Limited = "limited",
        /// Any other 4xx.
        Invalid = "invalid",
        /// The client was gone before there was an answer.
        ClientGone = "client_gone",
        /// The signature store failed.
        StoreFailing = "store_failing",
        /// No connection to the upstream, or it broke.
        UpstreamUnreachable = "upstream_unreachable",
        /// The upstream was silent for too long.
        UpstreamTimeout = "upstream_timeout",
        /// The upstream answered with a fault of its own.
        UpstreamFailing = "upstream_failing",
        /// 503 for a reason of our own: overload, or a policy that cannot be read.
        Unavailable = "unavailable",
        /// Any other 5xx: a fault of our own.
        Internal = "internal",
    }
}

impl Outcome {
    /// Returns the class of statuses, `2xx`.
    pub fn status(self) -> &'static str {
        match self {
            Self::Ok => "2xx",
            Self::Redirected => "3xx",
            Self::NotFound | Self::Unauthorized | Self::Denied | Self::Limited | Self::Invalid | Self::ClientGone => {
                "4xx"
            }
            Self::StoreFailing
            | Self::UpstreamUnreachable
            | Self::UpstreamTimeout
            | Self::UpstreamFailing
            | Self::Unavailable
            | Self::Internal => "5xx",
        }
    }

    /// Returns what a status means where nothing more is known.
    pub fn of_status(status: u16) -> Self {
        match status {
            ..300 => Self::Ok,
            300..400 => Self::Redirected,
            401 => Self::Unauthorized,
            403 => Self::Denied,
            404 => Self::NotFound,
            429 => Self::Limited,
            499 => Self::ClientGone,
            400..500 => Self::Invalid,
            503 => Self::Unavailable,
            500.. => Self::Internal,
        }
    }
}

label! {
    /// Whether a set was in memory.
    LookupResult "result" {
        /// It was.
        Hit = "hit",
        /// It was not; those who ask at the same time share one load.
        Miss = "miss",
    }
}

label! {
    /// How loading a set from the store went.
    LoadResult "result" {
        /// Well; also when the set is empty.
        Ok = "ok",
        /// The store failed.
        Failed = "failed",
    }
}

label! {
    /// What is done with the store.
    StoreOperation "operation" {
        /// Reading a set.
        Read = "read",
        /// Appending to a set.
        Append = "append",
        /// Taking from a set.
        Remove = "remove",
        /// Listing all sets, for the release view.
        Walk = "walk",
    }
}

label! {
    /// How it went.
    StoreOutcome "outcome" {
        /// Done.
        Ok = "ok",
        /// Not possible with this set: full, too large, a name that cannot be.
        Refused = "refused",
        /// The back end failed.
        Failed = "failed",
    }
}

label! {
    /// What an upstream did with a request.
    UpstreamOutcome "outcome" {
        /// Answered 1xx or 2xx.
        Ok = "2xx",
        /// Answered 3xx.
        Redirected = "3xx",
        /// Answered 4xx.
        Refused = "4xx",
        /// Answered 5xx.
        Failing = "5xx",
        /// There was no connection to be had.
        Unreachable = "unreachable",
        /// The connection broke before there was an answer.
        Broken = "broken",
        /// There was no answer in time.
        Timeout = "timeout",
    }
}

impl UpstreamOutcome {
    /// Returns the class of a status.
    pub fn of_status(status: u16) -> Self {
        match status {
            ..300 => Self::Ok,
            300..400 => Self::Redirected,
            400..500 => Self::Refused,
            500.. => Self::Failing,
        }
    }
}

label! {
    /// A right at the upstream.
    Right "right" {
        /// To read a manifest, hence its signatures.
        Pull = "pull",
        /// To write to a repository, hence to add signatures.
        Push = "push",
    }
}

label! {
    /// What came of asking for a right.
    AccessVerdict "verdict" {
        /// Granted a moment ago; the upstream was not asked.
        Cached = "cached",
        /// Granted by the upstream.
        Granted = "granted",
        /// The upstream has no such manifest, for this caller.
        Absent = "absent",
        /// Refused by the upstream.
        Refused = "refused",
        /// The upstream could not be asked.
        Failed = "failed",
    }
}

label! {
    /// What the gate says to an upload.
    GateVerdict "verdict" {
        /// It may be stored.
        Admitted = "admitted",
        /// The policy does not vouch for it.
        Denied = "denied",
        /// It has no readable claim for its digest.
        Invalid = "invalid",
        /// Policy or keys cannot be read.
        Unavailable = "unavailable",
    }
}

label! {
    /// Whether the audit log has a refusal.
    Recorded "recorded" {
        /// It has, in a line of its own or in one of several.
        Yes = "yes",
        /// It has not: the disk is nearly full, or cannot be written.
        No = "no",
    }
}

label! {
    /// How adding a signature went.
    AppendResult "result" {
        /// It was stored.
        New = "new",
        /// The same bytes were there.
        Already = "already",
        /// The set takes no more.
        Refused = "refused",
        /// The store failed.
        Failed = "failed",
    }
}

label! {
    /// Which way bytes went through the proxy.
    Direction "direction" {
        /// From the client to the upstream.
        Upload = "upload",
        /// From the upstream to the client.
        Download = "download",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_in_order() {
        let mut next = 0;
        <(Face, MethodClass, Outcome)>::each(|labels, texts| {
            assert_eq!((labels.place(), texts.len()), (next, 4));
            next += 1;
        });
        assert_eq!(next, <(Face, MethodClass, Outcome)>::COUNT);
        let mut seen = Vec::new();
        <(Right, AccessVerdict)>::each(|labels, texts| seen.push((labels.place(), texts.len())));
        assert_eq!(seen, (0..10).map(|place| (place, 2)).collect::<Vec<_>>());
    }

    #[test]
    fn an_outcome_is_of_its_statuss_class() {
        for status in 100..=599u16 {
            let class = format!("{}xx", if status < 200 { 2 } else { status / 100 });
            assert_eq!(Outcome::of_status(status).status(), class, "{status}");
        }
    }
}
