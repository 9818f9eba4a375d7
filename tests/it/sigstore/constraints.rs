//! Certificates under name constraints, and host names with wildcards, as Go's crypto/x509 takes
//! them. The verdicts were asked of Go 1.27.3 (spec containers-image 5.2).

use countersign::signature::{CERTIFICATE_ANNOTATION, CHAIN_ANNOTATION};
use countersign::sigstore::{PkiRoot, TrustRoot, TrustedSigner, verify};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType};
use rcgen::{GeneralSubtree, NameConstraints};

use super::support::{Authority, NOW, at, ca_params, email, host, key, params, payload, signed, with};

const ADDRESS: &str = "user@example.com";

fn emails(domains: &[&str]) -> Vec<GeneralSubtree> {
    domains.iter().map(|domain| GeneralSubtree::Rfc822Name((*domain).to_owned())).collect()
}

fn hosts(domains: &[&str]) -> Vec<GeneralSubtree> {
    domains.iter().map(|domain| GeneralSubtree::DnsName((*domain).to_owned())).collect()
}

fn authority(permitted: Vec<GeneralSubtree>, excluded: Vec<GeneralSubtree>) -> CertificateParams {
    let mut params = ca_params("constrained");
    params.name_constraints = Some(NameConstraints { permitted_subtrees: permitted, excluded_subtrees: excluded });
    params
}

fn leaf(names: Vec<SanType>) -> CertificateParams {
    let mut leaf = params("leaf");
    leaf.subject_alt_names = names;
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
    leaf
}

/// What comes of a signature under `root` by way of `chain` (leaf side first).
fn says(
    root: &Authority,
    chain: &[&Authority],
    leaf: &CertificateParams,
    hostname: Option<&str>,
) -> Result<(), String> {
    let signer = key();
    let issuer = chain.first().copied().unwrap_or(root);
    let blob = with(signed(&signer, &payload()), CERTIFICATE_ANNOTATION, issuer.issue(leaf, &signer));
    let texts: Vec<&str> = chain.iter().chain([&root]).map(|authority| authority.pem.as_str()).collect();
    let trusted = PkiRoot {
        roots: root.pem.clone().into(),
        intermediates: None,
        subject_email: hostname.is_none().then(|| ADDRESS.to_owned()),
        subject_hostname: hostname.map(str::to_owned),
    };
    let trusted = TrustRoot { signer: TrustedSigner::Pki(trusted), rekor_keys: None };
    verify(&with(blob, CHAIN_ANNOTATION, texts.concat()), &trusted, at(NOW)).map(drop).map_err(|e| e.to_string())
}

/// The constraints in the root, and in an intermediate.
fn both(params: &CertificateParams, leaf: &CertificateParams, hostname: Option<&str>) -> bool {
    let (constrained, free) = (Authority::root(params.clone()), Authority::root(ca_params("free")));
    let in_root = says(&constrained, &[], leaf, hostname);
    let in_between = says(&free, &[&free.under(params.clone())], leaf, hostname);
    assert_eq!(in_root.is_ok(), in_between.is_ok(), "{in_root:?} {in_between:?}");
    in_root.is_ok()
}

#[test]
fn addresses_within_the_constraints_are_accepted() {
    let user = leaf(vec![email(ADDRESS)]);
    for (permitted, excluded, accepted) in [
        (&["example.com"][..], &[][..], true),
        (&["EXAMPLE.com"], &[], true),
        (&["com"], &[], true),
        (&[ADDRESS], &[], true),
        (&["other.com", "example.com"], &[], true),
        (&["example.com"], &["bad.example.com"], true),
        (&["example.com"], &["other@example.com"], true),
        (&[], &["other.com"], true),
        (&[".example.com"], &[], false),
        (&["other.com"], &[], false),
        (&["xample.com"], &[], false),
        (&["other@example.com"], &[], false),
        (&["example.com"], &[ADDRESS], false),
        (&["example.com"], &["example.com"], false),
        (&[], &["com"], false),
    ] {
        assert_eq!(
            both(&authority(emails(permitted), emails(excluded)), &user, None),
            accepted,
            "{permitted:?} {excluded:?}"
        );
    }
    // Each kind of name is judged by the constraints of its kind.
    let mixed = authority([emails(&["example.com"]), hosts(&["example.com"])].concat(), Vec::new());
    assert!(both(&mixed, &leaf(vec![email(ADDRESS), host("a.example.com")]), None));
    assert!(!both(&mixed, &leaf(vec![email(ADDRESS), host("a.example")]), None));
    assert!(!both(&mixed, &leaf(vec![email(ADDRESS), email("x@other.com")]), None));
    // Go knows no directory names, and so fails a constraint of them.
    let directory = GeneralSubtree::DirectoryName(params("leaf").distinguished_name);
    assert!(!both(&authority([emails(&["example.com"]), vec![directory]].concat(), Vec::new()), &user, None));
}

#[test]
fn every_issuer_constrains_all_names_below_it() {
    let user = leaf(vec![email(ADDRESS)]);
    let root = Authority::root(authority(emails(&["example.com"]), Vec::new()));
    let with_address = |address: &str| {
        let mut params = ca_params("middle");
        params.subject_alt_names = vec![email(address)];
        root.under(params)
    };
    assert_eq!(says(&root, &[&with_address("ca@example.com")], &user, None), Ok(()));
    assert!(says(&root, &[&with_address("ca@other.com")], &user, None).is_err());
    let narrower = root.under(authority(emails(&[ADDRESS]), Vec::new()));
    assert_eq!(says(&root, &[&narrower], &user, None), Ok(()));
    let other = root.under(authority(emails(&["other.com"]), Vec::new()));
    assert!(says(&root, &[&other], &user, None).is_err());
}

#[test]
fn constraints_do_not_make_other_rules_void() {
    let user = leaf(vec![email(ADDRESS)]);
    let shaped = |shape: &dyn Fn(&mut CertificateParams)| {
        let mut params = authority(emails(&["example.com"]), Vec::new());
        shape(&mut params);
        params
    };
    let odd = |p: &mut CertificateParams| {
        let mut extension = rcgen::CustomExtension::from_oid_content(&[1, 2, 3], vec![5, 0]);
        extension.set_criticality(true);
        p.custom_extensions.push(extension);
    };
    let early = |p: &mut CertificateParams| p.not_after = p.not_before + std::time::Duration::from_secs(60);
    let late = |p: &mut CertificateParams| p.not_before = p.not_after - std::time::Duration::from_secs(60);
    type Shape<'a> = &'a dyn Fn(&mut CertificateParams);
    let shapes: [Shape; 7] = [
        &early,
        &late,
        &odd,
        &|p| p.is_ca = IsCa::NoCa,
        &|p| p.is_ca = IsCa::ExplicitNoCa,
        &|p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth],
        &|p| p.key_usages = vec![KeyUsagePurpose::DigitalSignature],
    ];
    assert!(both(&shaped(&|_| {}), &user, None));
    for (index, shape) in shapes.into_iter().enumerate() {
        assert!(!both(&shaped(shape), &user, None), "issuer {index}");
    }
    let leaves: [Shape; 5] = [&early, &late, &odd, &|p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained), &|p| {
        p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]
    }];
    for (index, shape) in leaves.into_iter().enumerate() {
        let mut leaf = user.clone();
        shape(&mut leaf);
        assert!(!both(&shaped(&|_| {}), &leaf, None), "leaf {index}");
    }
    // Too long a path, a missing link, another's signature under the right name.
    let flat = Authority::root(shaped(&|p| p.is_ca = IsCa::Ca(BasicConstraints::Constrained(0))));
    assert_eq!(says(&flat, &[], &user, None), Ok(()));
    assert!(says(&flat, &[&flat.under(ca_params("below"))], &user, None).is_err());
    let root = Authority::root(shaped(&|_| {}));
    let middle = root.under(ca_params("middle"));
    let lower = middle.under(ca_params("lower"));
    assert_eq!(says(&root, &[&lower, &middle], &user, None), Ok(()));
    assert!(says(&root, &[&lower], &user, None).is_err());
    let twin = Authority::root(shaped(&|_| {}));
    assert!(says(&twin, &[&root.under(ca_params("middle"))], &user, None).is_err());
    let narrow = middle.under({
        let mut params = ca_params("narrow");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params
    });
    assert_eq!(says(&root, &[&narrow, &middle], &user, None), Ok(()));
    assert!(says(&root, &[&narrow.under(ca_params("x")), &narrow, &middle], &user, None).is_err());
}

#[test]
fn a_wildcard_below_a_top_level_domain() {
    let root = Authority::root(ca_params("root"));
    for (pattern, hostname, accepted) in [
        ("*.example", "a.example", true),
        ("*.example", "A.EXAMPLE", true),
        ("*.example", "a.example.", true),
        ("*.example", "example", false),
        ("*.example", "a.b.example", false),
        ("*.example", "a.other", false),
        ("a*.example", "ab.example", false),
        ("*", "example", false),
        ("host", "host", true),
    ] {
        let verdict = says(&root, &[], &leaf(vec![host(pattern)]), Some(hostname));
        assert_eq!(verdict.is_ok(), accepted, "{pattern} {hostname}: {verdict:?}");
    }
    let wild = leaf(vec![host("*.example")]);
    for (permitted, excluded, accepted) in [
        (&["example"][..], &[][..], true),
        (&[".example"], &[], true),
        (&["a.example"], &[], false),
        (&["other"], &[], false),
        (&[], &["other"], true),
        (&[], &["example"], false),
        // The wildcard may stand for it.
        (&[], &["a.example"], false),
    ] {
        let params = authority(hosts(permitted), hosts(excluded));
        assert_eq!(both(&params, &wild, Some("a.example")), accepted, "{permitted:?} {excluded:?}");
    }
}
