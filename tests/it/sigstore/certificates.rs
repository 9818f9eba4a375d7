//! Sigstore signatures by certificates: Fulcio at the log's time, an own PKI as of now; and what
//! no path may be made of.

use countersign::signature::{CERTIFICATE_ANNOTATION, CHAIN_ANNOTATION, SET_ANNOTATION, SigstoreAttachment};
use countersign::sigstore::{FulcioRoot, PkiRoot, TrustRoot, TrustRootError, TrustedSigner, Verifier, verify};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose};

use super::support::{
    Authority, NOW, at, body, build_signer, ca_params, email, host, issuer_v1, issuer_v2, issuer_v2_raw, key, params,
    payload, set, signed, with,
};

const OIDC: &str = "https://github.com/login/oauth";
const ADDRESS: &str = "user@example.com";
const BUILD: &str = "https://github.com/org/repo/.github/workflows/build.yml@refs/heads/main";

fn leaf() -> CertificateParams {
    let mut leaf = params("leaf");
    leaf.subject_alt_names = vec![email(ADDRESS), host("signer.example.com")];
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
    leaf.custom_extensions = vec![issuer_v2(OIDC)];
    leaf
}

fn fulcio_root(ca: &str) -> FulcioRoot {
    FulcioRoot {
        ca: ca.into(),
        oidc_issuer: OIDC.to_owned(),
        subject_email: Some(ADDRESS.to_owned()),
        build_signer_uri: None,
    }
}

fn fulcio(trusted: FulcioRoot, log: &KeyPair) -> TrustRoot {
    TrustRoot { signer: TrustedSigner::Fulcio(trusted), rekor_keys: Some(vec![log.public_key_pem().into_bytes()]) }
}

fn pki(roots: &str) -> TrustRoot {
    let trusted = PkiRoot { roots: roots.into(), subject_email: Some(ADDRESS.to_owned()), ..PkiRoot::default() };
    TrustRoot { signer: TrustedSigner::Pki(trusted), rekor_keys: None }
}

/// A signature with the certificate `pem` of `signer`, logged at `time`.
fn keyless(signer: &KeyPair, pem: &str, log: &KeyPair, time: i64) -> SigstoreAttachment {
    let blob = with(signed(signer, &payload()), CERTIFICATE_ANNOTATION, pem);
    let set = set(log, &body(&blob, pem), time);
    with(blob, SET_ANNOTATION, set)
}

/// What comes of a Fulcio leaf as `shape` makes it.
fn fulcio_says(trusted: FulcioRoot, shape: impl FnOnce(&mut CertificateParams), time: i64) -> Result<(), String> {
    let (root, log, signer) = (Authority::root(ca_params("root")), key(), key());
    let mut leaf = leaf();
    shape(&mut leaf);
    let pem = root.issue(&leaf, &signer);
    let trusted = FulcioRoot { ca: root.pem.clone().into_bytes(), ..trusted };
    let blob = keyless(&signer, &pem, &log, time);
    verify(&blob, &fulcio(trusted, &log), at(NOW + 1_000_000)).map(drop).map_err(|e| e.to_string())
}

#[test]
fn fulcio_judges_at_the_logs_time() {
    let says = |time| fulcio_says(fulcio_root(""), |_| {}, time);
    assert_eq!(says(NOW), Ok(()), "long expired when verified");
    assert_eq!(says(NOW - 1800), Ok(()), "its first second");
    assert_eq!(says(NOW + 1800), Ok(()), "its last second");
    for time in [NOW - 1801, NOW + 1801, 0] {
        let error = says(time).unwrap_err();
        assert!(error.starts_with("veryfing leaf certificate failed: x509: "), "{error}");
    }
    assert_eq!(says(-1).unwrap_err(), "Rekor integrated time -1 is not a time of certificates");
}

#[test]
fn fulcio_identity_must_match() {
    let says = |shape: &dyn Fn(&mut CertificateParams)| fulcio_says(fulcio_root(""), shape, NOW);
    assert_eq!(says(&|leaf| leaf.custom_extensions = vec![issuer_v1(OIDC)]), Ok(()));
    assert_eq!(says(&|leaf| leaf.custom_extensions.push(issuer_v1(OIDC))), Ok(()));
    assert_eq!(says(&|leaf| leaf.subject_alt_names = vec![email("a@example.com"), email(ADDRESS)]), Ok(()));
    let missing = "Fulcio certificate is missing the issuer extension";
    let trailing = "invalid ASN.1 in OIDC issuer v2 extension";
    type Shape<'a> = &'a dyn Fn(&mut CertificateParams);
    let refused: [(Shape, &str); 10] = [
        (&|leaf| leaf.custom_extensions.clear(), missing),
        (&|leaf| leaf.custom_extensions = vec![issuer_v2("https://x")], "Unexpected Fulcio OIDC issuer \"https://x\""),
        (
            &|leaf| leaf.custom_extensions.push(issuer_v1("https://x")),
            "inconsistent OIDC issuer extension values: v1 \"https://x\", v2 \"https://github.com/login/oauth\"",
        ),
        (&|leaf| leaf.custom_extensions = vec![issuer_v2_raw(&[2, 1, 1])], trailing),
        (&|leaf| leaf.custom_extensions = vec![issuer_v2_raw(b"\x0c\x01a\x0c\x01b")], trailing),
        (&|leaf| leaf.custom_extensions = vec![issuer_v2_raw(b"")], trailing),
        (
            &|leaf| leaf.custom_extensions.push(issuer_v2(OIDC)),
            "parsing leaf certificate: x509: certificate contains duplicate extensions: 1.3.6.1.4.1.57264.1.8",
        ),
        (
            &|leaf| leaf.subject_alt_names = vec![email("a@x"), email("b@x")],
            "Required email \"user@example.com\" not found (got [\"a@x\" \"b@x\"])",
        ),
        (&|leaf| leaf.subject_alt_names.clear(), "Required email \"user@example.com\" not found (got [])"),
        (
            &|leaf| leaf.subject_alt_names = vec![email("USER@example.com")],
            "Required email \"user@example.com\" not found (got [\"USER@example.com\"])",
        ),
    ];
    for (shape, reason) in refused {
        assert_eq!(says(shape), Err(reason.to_owned()));
    }

    let by_build = FulcioRoot { subject_email: None, build_signer_uri: Some(BUILD.to_owned()), ..fulcio_root("") };
    let says = |trusted: &FulcioRoot, build: Option<&str>| {
        fulcio_says(trusted.clone(), |leaf| leaf.custom_extensions.extend(build.map(build_signer)), NOW)
    };
    assert_eq!(says(&by_build, Some(BUILD)), Ok(()));
    let both = FulcioRoot { subject_email: Some("x@y".to_owned()), ..by_build.clone() };
    assert!(says(&both, Some(BUILD)).unwrap_err().starts_with("Required email"));
    assert_eq!(
        says(&by_build, Some("https://x")),
        Err(format!("Required BuildSignerURI \"{BUILD}\" not found (got \"https://x\")"))
    );
    assert_eq!(says(&by_build, None), Err(format!("Required BuildSignerURI \"{BUILD}\" not found (got \"\")")));
}

#[test]
fn fulcio_needs_the_logs_word_for_this_certificate() {
    let (root, log, signer) = (Authority::root(ca_params("root")), key(), key());
    let pem = root.issue(&leaf(), &signer);
    let trusted = fulcio(fulcio_root(&root.pem), &log);
    let good = keyless(&signer, &pem, &log, NOW);
    let refusal = |blob: &SigstoreAttachment| verify(blob, &trusted, at(NOW)).unwrap_err().to_string();
    assert!(verify(&good, &trusted, at(NOW)).is_ok());

    for name in [SET_ANNOTATION, CERTIFICATE_ANNOTATION] {
        let mut without = good.clone();
        without.annotations.remove(name);
        assert_eq!(refusal(&without), format!("missing {name} annotation"));
    }
    // Another certificate for the same key, as good as the first but not logged.
    let again = with(good.clone(), CERTIFICATE_ANNOTATION, root.issue(&leaf(), &signer));
    assert_eq!(refusal(&again), "publicKey in Rekor SET does not match");
    let twice = with(good.clone(), CERTIFICATE_ANNOTATION, pem.repeat(2));
    assert_eq!(refusal(&twice), "public key or cert to be matched against publicKey in Rekor SET has trailing data");
    let none = with(good.clone(), CERTIFICATE_ANNOTATION, "");
    assert_eq!(refusal(&none), "public key or cert to be matched against publicKey in Rekor SET is not in PEM format");
    let chain = with(good.clone(), CHAIN_ANNOTATION, "no certificate");
    assert_eq!(refusal(&chain), "loading certificate chain: error during PEM decoding");
    // The certificate of one, the signature of another; the log vouches for both together.
    let stolen = keyless(&key(), &pem, &log, NOW);
    assert!(refusal(&stolen).starts_with("cryptographic signature verification failed: "));
    // A certificate of the right shape by a stranger.
    let stranger = Authority::root(ca_params("root")).issue(&leaf(), &signer);
    assert!(refusal(&keyless(&signer, &stranger, &log, NOW)).starts_with("veryfing leaf certificate failed: "));
}

#[test]
fn trust_roots_must_be_whole() {
    let log = key();
    let root = Authority::root(ca_params("root"));
    let reason = |root: &TrustRoot| Verifier::new(root).unwrap_err().to_string();
    assert_eq!(reason(&fulcio(fulcio_root("no certificate"), &log)), "error loading Fulcio CA certificates");
    let no_issuer = FulcioRoot { oidc_issuer: String::new(), ..fulcio_root(&root.pem) };
    assert_eq!(reason(&fulcio(no_issuer, &log)), "Fulcio use set up without OIDC issuer");
    let no_one = FulcioRoot { subject_email: Some(String::new()), ..fulcio_root(&root.pem) };
    assert!(reason(&fulcio(no_one, &log)).starts_with("Fulcio use set up without subject identity"));
    let unlogged = TrustRoot { rekor_keys: None, ..fulcio(fulcio_root(&root.pem), &log) };
    assert_eq!(Verifier::new(&unlogged).unwrap_err(), TrustRootError::FulcioWithoutRekor);

    assert_eq!(reason(&pki("")), "error loading PKI CA Roots certificates");
    let logged = TrustRoot { rekor_keys: Some(vec![log.public_key_pem().into()]), ..pki(&root.pem) };
    assert_eq!(Verifier::new(&logged).unwrap_err(), TrustRootError::PkiWithRekor);
    let no_one = PkiRoot { roots: root.pem.clone().into(), ..PkiRoot::default() };
    let no_one = TrustRoot { signer: TrustedSigner::Pki(no_one), rekor_keys: None };
    assert_eq!(reason(&no_one), "PKI use set up without subject email or subject hostname");
    let broken = PkiRoot {
        roots: root.pem.clone().into(),
        intermediates: Some(b"x".to_vec()),
        subject_email: Some(ADDRESS.to_owned()),
        subject_hostname: None,
    };
    let broken = TrustRoot { signer: TrustedSigner::Pki(broken), rekor_keys: None };
    assert_eq!(reason(&broken), "loading trusted intermediate certificates: error during PEM decoding");
}

/// What comes of a PKI signature under `root` by way of `chain` (intermediates, leaf side first).
fn pki_says(root: &Authority, chain: &[&Authority], leaf: &CertificateParams, now: i64) -> Result<(), String> {
    let signer = key();
    let issuer = chain.first().copied().unwrap_or(root);
    let blob = with(signed(&signer, &payload()), CERTIFICATE_ANNOTATION, issuer.issue(leaf, &signer));
    let texts: Vec<&str> = chain.iter().chain([&root]).map(|authority| authority.pem.as_str()).collect();
    let blob = with(blob, CHAIN_ANNOTATION, texts.concat());
    verify(&blob, &pki(&root.pem), at(now)).map(drop).map_err(|e| e.to_string())
}

#[test]
fn pki_paths_lead_to_a_root() {
    let root = Authority::root(ca_params("root"));
    let middle = root.under(ca_params("middle"));
    let lower = middle.under(ca_params("lower"));
    assert_eq!(pki_says(&root, &[], &leaf(), NOW), Ok(()));
    assert_eq!(pki_says(&root, &[&middle], &leaf(), NOW), Ok(()));
    assert_eq!(pki_says(&root, &[&lower, &middle], &leaf(), NOW), Ok(()));
    assert!(pki_says(&root, &[&lower], &leaf(), NOW).is_err(), "a missing link");
    assert!(pki_says(&root, &[&middle], &leaf(), NOW + 1801).is_err(), "expired now");
    assert!(pki_says(&root, &[&middle], &leaf(), NOW - 1801).is_err(), "not yet valid");

    // Intermediates of the policy; and a chain annotation whose last certificate is never one.
    let signer = key();
    let blob = with(signed(&signer, &payload()), CERTIFICATE_ANNOTATION, middle.issue(&leaf(), &signer));
    let mut trusted = pki(&root.pem);
    assert!(verify(&blob, &trusted, at(NOW)).is_err());
    let alone = with(blob.clone(), CHAIN_ANNOTATION, middle.pem.clone());
    assert!(verify(&alone, &trusted, at(NOW)).is_err());
    if let TrustedSigner::Pki(own) = &mut trusted.signer {
        own.intermediates = Some(middle.pem.clone().into());
    }
    assert!(verify(&blob, &trusted, at(NOW)).is_ok());
    // Several roots, of which one is another by the same name.
    let twin = Authority::root(ca_params("root"));
    let both = pki(&[twin.pem.as_str(), "# talk\n", root.pem.as_str()].concat());
    let whole = with(blob, CHAIN_ANNOTATION, [middle.pem.as_str(), root.pem.as_str()].concat());
    assert!(verify(&whole, &both, at(NOW)).is_ok());
    assert!(verify(&whole, &pki(&twin.pem), at(NOW)).is_err());
}

#[test]
fn pki_subjects_must_match() {
    let root = Authority::root(ca_params("root"));
    let says = |email: Option<&str>, hostname: Option<&str>, names: Vec<rcgen::SanType>| {
        let signer = key();
        let mut leaf = leaf();
        leaf.subject_alt_names = names;
        let blob = with(signed(&signer, &payload()), CERTIFICATE_ANNOTATION, root.issue(&leaf, &signer));
        let trusted = PkiRoot {
            roots: root.pem.clone().into(),
            intermediates: None,
            subject_email: email.map(str::to_owned),
            subject_hostname: hostname.map(str::to_owned),
        };
        let root = TrustRoot { signer: TrustedSigner::Pki(trusted), rekor_keys: None };
        verify(&blob, &root, at(NOW)).map(drop).map_err(|e| e.to_string())
    };
    let all = || vec![email(ADDRESS), host("a.example.com"), host("*.b.example.com")];
    assert_eq!(says(Some(ADDRESS), Some("a.example.com"), all()), Ok(()));
    assert_eq!(says(None, Some("A.example.COM"), all()), Ok(()));
    assert_eq!(says(None, Some("x.b.example.com"), all()), Ok(()));
    assert_eq!(says(None, Some("[192.0.2.1]"), vec![rcgen::SanType::IpAddress([192, 0, 2, 1].into())]), Ok(()));
    for wrong in ["b.example.com", "x.y.b.example.com", "example.com", "192.0.2.1", "", "a.example.com/"] {
        let error = says(Some(ADDRESS), Some(wrong).filter(|name| !name.is_empty()), all());
        assert_eq!(error.is_ok(), wrong.is_empty(), "{wrong}: {error:?}");
    }
    assert_eq!(
        says(None, Some("c.example.com"), all()).unwrap_err(),
        "Unexpected subject hostname: x509: certificate is valid for a.example.com, *.b.example.com, not c.example.com"
    );
    assert!(says(Some("x@y"), Some("a.example.com"), all()).unwrap_err().starts_with("Required email"));
}

#[test]
fn issuers_must_be_allowed_to_issue() {
    let good = Authority::root(ca_params("root"));
    let refused = |root: &Authority, chain: &[&Authority], leaf: &CertificateParams, now, reason: &str| {
        let error = pki_says(root, chain, leaf, now).unwrap_err();
        assert!(error.contains(reason), "{reason}: {error}");
    };
    let shaped = |shape: &dyn Fn(&mut CertificateParams)| {
        let mut params = ca_params("shaped");
        shape(&mut params);
        params
    };

    // What webpki does not ask of a root, and Go does.
    let old = shaped(&|p| p.not_after = p.not_before + std::time::Duration::from_secs(60));
    refused(&Authority::root(old), &[], &leaf(), NOW, "has expired or is not yet valid");
    let no_ca = shaped(&|p| p.is_ca = IsCa::ExplicitNoCa);
    refused(&Authority::root(no_ca), &[], &leaf(), NOW, "it is no certificate authority");
    let plain = shaped(&|p| p.is_ca = IsCa::NoCa);
    refused(&Authority::root(plain), &[], &leaf(), NOW, "it is no certificate authority");
    let for_servers = shaped(&|p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]);
    refused(&Authority::root(for_servers.clone()), &[], &leaf(), NOW, "extended key usage does not have code signing");
    let no_signing = shaped(&|p| p.key_usages = vec![KeyUsagePurpose::DigitalSignature]);
    refused(&Authority::root(no_signing.clone()), &[], &leaf(), NOW, "key usage does not have certificate signing");
    let flat = Authority::root(shaped(&|p| p.is_ca = IsCa::Ca(BasicConstraints::Constrained(0))));
    assert_eq!(pki_says(&flat, &[], &leaf(), NOW), Ok(()));
    let below = flat.under(ca_params("below"));
    refused(&flat, &[&below], &leaf(), NOW, "too many intermediates for its path length constraint");
    let odd = shaped(&|p| {
        let mut extension = rcgen::CustomExtension::from_oid_content(&[1, 2, 3], vec![5, 0]);
        extension.set_criticality(true);
        p.custom_extensions.push(extension);
    });
    refused(&Authority::root(odd.clone()), &[], &leaf(), NOW, "unhandled critical extension");

    // The same of an issuer in between.
    for (params, reason) in [
        (shaped(&|p| p.is_ca = IsCa::NoCa), "EndEntityUsedAsCa"),
        (for_servers, "RequiredEkuNotFound"),
        (no_signing, "may not sign certificates"),
        (odd, "UnsupportedCriticalExtension"),
        (shaped(&|p| p.not_after = p.not_before + std::time::Duration::from_secs(60)), "CertExpired"),
    ] {
        refused(&good, &[&good.under(params)], &leaf(), NOW, reason);
    }
    let any = shaped(&|p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::Any]);
    assert_eq!(pki_says(&Authority::root(any), &[], &leaf(), NOW), Ok(()));

    // And of the leaf.
    let mut server = leaf();
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    refused(&good, &[], &server, NOW, "RequiredEkuNotFound");
    let mut no_purpose = leaf();
    no_purpose.extended_key_usages.clear();
    assert_eq!(pki_says(&good, &[], &no_purpose, NOW), Ok(()), "as Go takes it");
    let mut authority = leaf();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    refused(&good, &[], &authority, NOW, "CaUsedAsEndEntity");
    // Names that the root may not give.
    let narrow = shaped(&|p| {
        let other = rcgen::GeneralSubtree::DnsName("other.example".to_owned());
        p.name_constraints =
            Some(rcgen::NameConstraints { permitted_subtrees: vec![other], excluded_subtrees: Vec::new() });
    });
    refused(&Authority::root(narrow), &[], &leaf(), NOW, "NameConstraintViolation");
}

#[test]
fn a_stranger_cannot_keep_the_path_builder_busy() {
    let (root, signer) = (Authority::root(ca_params("root")), key());
    // All by one name, so that each may be the issuer of each.
    let tangle: Vec<_> = (0..9).map(|_| Authority::root(ca_params("tangle"))).collect();
    let blob = with(signed(&signer, &payload()), CERTIFICATE_ANNOTATION, tangle[0].issue(&leaf(), &signer));
    let chain = |length: usize| tangle[..length].iter().map(|one| one.pem.as_str()).collect::<String>();
    let refusal = |chain: String| {
        let started = std::time::Instant::now();
        let error = verify(&with(blob.clone(), CHAIN_ANNOTATION, chain), &pki(&root.pem), at(NOW)).unwrap_err();
        assert!(started.elapsed() < std::time::Duration::from_secs(5), "{:?}", started.elapsed());
        error.to_string()
    };
    assert!(refusal(chain(8)).starts_with("veryfing leaf certificate failed: x509: no valid path"));
    assert_eq!(refusal(chain(9)), "loading certificate chain: more than 8 certificates in the certificate chain");
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]
    #[test]
    fn damaged_certificates_never_panic(at in 0usize..1200, bit in 0u8..8, chain in ".{0,40}") {
        let (root, signer) = (Authority::root(ca_params("root")), key());
        let mut pem = root.issue(&leaf(), &signer).into_bytes();
        let at = at % pem.len();
        pem[at] ^= 1 << bit;
        if let Ok(damaged) = String::from_utf8(pem) {
            let blob = with(signed(&signer, &payload()), CERTIFICATE_ANNOTATION, damaged);
            let _ = verify(&blob, &pki(&root.pem), super::support::at(NOW));
            let _ = verify(&with(blob, CHAIN_ANNOTATION, chain), &pki(&root.pem), super::support::at(NOW));
        }
    }
}
