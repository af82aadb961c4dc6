use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

use super::*;

const NOW: u64 = 1_800_000_000;
const DAY: u64 = 86_400;

/// All the keys of one issuing, and details that are right until a test changes them.
struct Issuer {
    rng: ChaCha20Rng,
    root: KeyPair,
    intermediate: KeyPair,
    server: KeyPair,
    intermediate_details: CertDetails,
    leaf_details: CertDetails,
}

impl Issuer {
    fn new() -> Self {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let [root, intermediate, server] = std::array::from_fn(|_| KeyPair::generate(&mut rng));
        let details = |serial, issuer_serial, key| CertDetails {
            serial,
            issuer_serial,
            key,
            not_before: NOW - 30 * DAY,
            not_after: NOW + 30 * DAY,
        };
        let intermediate_details = details(7, ROOT_SERIAL, intermediate.public);
        let leaf_details = details(8, 7, server.public);
        Self { rng, root, intermediate, server, intermediate_details, leaf_details }
    }

    fn intermediate(&mut self) -> NoiseCertificate {
        issue(&self.root, &self.intermediate_details, &mut self.rng)
    }

    fn leaf(&mut self) -> NoiseCertificate {
        issue(&self.intermediate, &self.leaf_details, &mut self.rng)
    }

    /// The verdict on a chain signed with the right keys over the current details.
    fn verdict(&mut self) -> Result<(), CertError> {
        let (intermediate, leaf) = (self.intermediate(), self.leaf());
        self.verdict_on(Some(intermediate), Some(leaf))
    }

    fn verdict_on(
        &self,
        intermediate: Option<NoiseCertificate>,
        leaf: Option<NoiseCertificate>,
    ) -> Result<(), CertError> {
        verify_chain(&encode_chain(intermediate, leaf), &self.server.public, &self.root.public, NOW)
    }
}

#[test]
fn a_sound_chain_is_accepted() {
    assert_eq!(Issuer::new().verdict(), Ok(()));
}

#[test]
fn an_issued_chain_is_sound() {
    let mut issuer = Issuer::new();
    let chain = issue_chain(&issuer.root, &issuer.server.public, NOW - DAY, NOW + DAY, &mut issuer.rng);
    assert_eq!(verify_chain(&chain, &issuer.server.public, &issuer.root.public, NOW), Ok(()));
}

#[test]
fn another_root_is_refused() {
    let mut issuer = Issuer::new();
    issuer.root = KeyPair::generate(&mut issuer.rng);
    let (intermediate, leaf) = (issuer.intermediate(), issuer.leaf());
    issuer.root = KeyPair::generate(&mut issuer.rng);
    let verdict = issuer.verdict_on(Some(intermediate), Some(leaf));
    assert_eq!(verdict, Err(CertError::BadSignature(Link::Intermediate)));
}

#[test]
fn a_forged_leaf_is_refused() {
    let mut issuer = Issuer::new();
    let intermediate = issuer.intermediate();
    issuer.intermediate = KeyPair::generate(&mut issuer.rng);
    let leaf = issuer.leaf();
    assert_eq!(issuer.verdict_on(Some(intermediate), Some(leaf)), Err(CertError::BadSignature(Link::Leaf)));
}

#[test]
fn a_changed_certificate_is_refused() {
    let mut issuer = Issuer::new();
    for link in [Link::Intermediate, Link::Leaf] {
        for byte in 0..40 {
            let (mut intermediate, mut leaf) = (issuer.intermediate(), issuer.leaf());
            let changed = if link == Link::Leaf { &mut leaf } else { &mut intermediate };
            changed.details.as_mut().unwrap()[byte] ^= 0x10;
            let verdict = issuer.verdict_on(Some(intermediate), Some(leaf));
            assert_eq!(verdict, Err(CertError::BadSignature(link)));
        }
    }
}

#[test]
fn a_chain_for_another_key_is_refused() {
    let mut issuer = Issuer::new();
    issuer.leaf_details.key = KeyPair::generate(&mut issuer.rng).public;
    assert_eq!(issuer.verdict(), Err(CertError::OtherKey));
}

#[test]
fn wrong_serials_are_refused() {
    let mut issuer = Issuer::new();
    issuer.intermediate_details.issuer_serial = 1;
    assert_eq!(issuer.verdict(), Err(CertError::WrongIssuer(Link::Intermediate)));

    let mut issuer = Issuer::new();
    issuer.leaf_details.issuer_serial = 6;
    assert_eq!(issuer.verdict(), Err(CertError::WrongIssuer(Link::Leaf)));
}

#[test]
fn certificates_out_of_time_are_refused_beyond_the_clock_tolerance() {
    type Change = fn(&mut Issuer, u64);
    let cases: [(Change, CertError); 2] = [
        (
            |issuer, by| issuer.intermediate_details.not_after = NOW - by,
            CertError::Expired(Link::Intermediate),
        ),
        (|issuer, by| issuer.leaf_details.not_after = NOW - by, CertError::Expired(Link::Leaf)),
    ];
    for (change, error) in cases {
        let mut issuer = Issuer::new();
        change(&mut issuer, CLOCK_SKEW_S);
        assert_eq!(issuer.verdict(), Ok(()));
        change(&mut issuer, CLOCK_SKEW_S + 1);
        assert_eq!(issuer.verdict(), Err(error));
    }
    let mut issuer = Issuer::new();
    issuer.leaf_details.not_before = NOW + CLOCK_SKEW_S;
    assert_eq!(issuer.verdict(), Ok(()));
    issuer.leaf_details.not_before += 1;
    assert_eq!(issuer.verdict(), Err(CertError::NotYetValid(Link::Leaf)));
    issuer.intermediate_details.not_before = NOW + CLOCK_SKEW_S + 1;
    assert_eq!(issuer.verdict(), Err(CertError::NotYetValid(Link::Intermediate)));
}

#[test]
fn a_missing_certificate_or_part_is_refused() {
    let mut issuer = Issuer::new();
    let (intermediate, leaf) = (issuer.intermediate(), issuer.leaf());
    let missing = |link, what| Err(CertError::Missing(link, what));
    assert_eq!(issuer.verdict_on(None, Some(leaf.clone())), missing(Link::Intermediate, "certificate"));
    assert_eq!(issuer.verdict_on(Some(intermediate.clone()), None), missing(Link::Leaf, "certificate"));
    let unsigned = NoiseCertificate { signature: None, ..leaf.clone() };
    assert_eq!(
        issuer.verdict_on(Some(intermediate.clone()), Some(unsigned)),
        missing(Link::Leaf, "signature")
    );
    let empty = NoiseCertificate { details: None, ..leaf };
    assert_eq!(issuer.verdict_on(Some(intermediate), Some(empty)), missing(Link::Leaf, "details"));
}

#[test]
fn bytes_that_are_no_chain_are_refused() {
    let issuer = Issuer::new();
    let verdict = verify_chain(&[0xff; 30], &issuer.server.public, &issuer.root.public, NOW);
    assert!(matches!(verdict, Err(CertError::Malformed(_))));
}
