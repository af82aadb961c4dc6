//! PN or LID: which namespace a 1:1 stanza is addressed in. Everything inside one stanza shares it.
//!
//! Wrong is expensive: LID on an account that is not migrated gives 400, PN on a migrated one gives 463 or a chat
//! that only the sender sees. Seen: whatsapp-rust `src/client/lid_pn.rs` @1489b7da, issues named in the tests.

/// One of the two names every account has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Namespace {
    /// By phone number.
    Pn,
    /// By opaque id.
    Lid,
}

impl Namespace {
    /// The other one.
    pub(super) fn other(self) -> Self {
        match self {
            Self::Pn => Self::Lid,
            Self::Lid => Self::Pn,
        }
    }
}

/// What is known when a stanza is addressed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts {
    /// The account's 1:1 chats are LID-addressed.
    pub(super) migrated: bool,
    /// We know our own LID; without it our own devices could not be named.
    pub(super) own_lid: bool,
    /// The peer's phone number is known.
    pub(super) peer_pn: bool,
    /// The peer's LID is known.
    pub(super) peer_lid: bool,
    /// A usync for the missing half of the pair has been answered already.
    pub(super) asked: bool,
    /// What the server's refusal taught us about this chat.
    pub(super) forced: Option<Namespace>,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    /// Address by this namespace.
    Use(Namespace),
    /// Ask the server for the peer's other name first.
    AskUsync,
}

/// Decides. Never names a namespace in which we, or the peer, cannot be named.
pub(super) fn decide(facts: Facts) -> Decision {
    let wanted = match facts.forced {
        Some(namespace) => namespace,
        None if facts.migrated && facts.own_lid => Namespace::Lid,
        None => Namespace::Pn,
    };
    let (named, other) = match wanted {
        Namespace::Lid => (facts.peer_lid && facts.own_lid, Namespace::Pn),
        Namespace::Pn => (facts.peer_pn, Namespace::Lid),
    };
    if named {
        Decision::Use(wanted)
    } else if facts.asked || !facts.own_lid {
        Decision::Use(other)
    } else {
        Decision::AskUsync
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: Facts =
        Facts { migrated: true, own_lid: true, peer_pn: true, peer_lid: true, asked: false, forced: None };

    #[test]
    fn a_migrated_account_addresses_by_lid_and_asks_for_a_missing_one_once() {
        assert_eq!(decide(KNOWN), Decision::Use(Namespace::Lid));
        assert_eq!(decide(Facts { peer_lid: false, ..KNOWN }), Decision::AskUsync);
        // The peer has no LID: the phone number is all there is.
        assert_eq!(decide(Facts { peer_lid: false, asked: true, ..KNOWN }), Decision::Use(Namespace::Pn));
        // A LID whose phone number is unknown needs no question.
        assert_eq!(decide(Facts { peer_pn: false, ..KNOWN }), Decision::Use(Namespace::Lid));
    }

    /// whatsapp-rust issue 941: every LID-addressed message of such an account is answered with 400.
    #[test]
    fn an_account_that_is_not_migrated_addresses_by_phone_number() {
        let account = Facts { migrated: false, ..KNOWN };
        assert_eq!(decide(account), Decision::Use(Namespace::Pn));
        assert_eq!(decide(Facts { peer_lid: false, ..account }), Decision::Use(Namespace::Pn));
        assert_eq!(decide(Facts { peer_pn: false, ..account }), Decision::AskUsync);
        assert_eq!(decide(Facts { peer_pn: false, asked: true, ..account }), Decision::Use(Namespace::Lid));
    }

    #[test]
    fn without_a_lid_of_our_own_there_is_no_lid_addressing() {
        assert_eq!(decide(Facts { own_lid: false, ..KNOWN }), Decision::Use(Namespace::Pn));
        let forced = Facts { own_lid: false, forced: Some(Namespace::Lid), ..KNOWN };
        assert_eq!(decide(forced), Decision::Use(Namespace::Pn));
    }

    #[test]
    fn a_refusal_by_the_server_overrules_the_account_state() {
        let flipped = Facts { forced: Some(Namespace::Pn), ..KNOWN };
        assert_eq!(decide(flipped), Decision::Use(Namespace::Pn));
        let flipped = Facts { migrated: false, forced: Some(Namespace::Lid), ..KNOWN };
        assert_eq!(decide(flipped), Decision::Use(Namespace::Lid));
        assert_eq!(decide(Facts { peer_lid: false, ..flipped }), Decision::AskUsync);
    }
}
