//! An OpenPGP RSA secret key as the PKCS#1 structure that aws-lc reads (RFC 8017, A.1.2).

use zeroize::Zeroizing;

/// The numbers of a secret RSA key, big-endian, named as OpenPGP does: p < q and u = 1/p mod q.
pub(super) struct RsaNumbers<'a> {
    pub n: &'a [u8],
    pub e: &'a [u8],
    pub d: &'a [u8],
    pub p: &'a [u8],
    pub q: &'a [u8],
    pub u: &'a [u8],
}

/// Encodes `RSAPrivateKey`. PKCS#1 has 1/prime2 mod prime1 where OpenPGP has 1/p mod q, so
/// OpenPGP's q comes first.
pub(super) fn pkcs1(key: &RsaNumbers<'_>) -> Zeroizing<Vec<u8>> {
    let d_mod_q = remainder(key.d, key.q);
    let d_mod_p = remainder(key.d, key.p);
    let mut body = Zeroizing::new(Vec::with_capacity(5 * key.n.len() + 64));
    for number in [&[0][..], key.n, key.e, key.d, key.q, key.p, &d_mod_q, &d_mod_p, key.u] {
        integer(number, &mut body);
    }
    let mut out = Zeroizing::new(Vec::with_capacity(body.len() + 8));
    tagged(0x30, body.len(), &mut out);
    out.extend_from_slice(&body);
    out
}

fn integer(number: &[u8], out: &mut Vec<u8>) {
    let number = trim(number);
    // A leading zero keeps it positive; zero itself is one zero octet.
    let pad = number.first().is_none_or(|b| b & 0x80 != 0);
    tagged(0x02, number.len() + usize::from(pad), out);
    if pad {
        out.push(0);
    }
    out.extend_from_slice(number);
}

fn tagged(tag: u8, length: usize, out: &mut Vec<u8>) {
    out.push(tag);
    let octets = length.to_be_bytes();
    let octets = trim(&octets);
    match octets {
        [] => out.push(0),
        [short @ 0..=0x7F] => out.push(*short),
        _ => {
            out.push(0x80 | u8::try_from(octets.len()).unwrap_or_default());
            out.extend_from_slice(octets);
        }
    }
}

fn trim(number: &[u8]) -> &[u8] {
    number.get(number.iter().take_while(|b| **b == 0).count()..).unwrap_or_default()
}

/// `number` mod `modulus - 1`, bit by bit: some milliseconds, once a key.
fn remainder(number: &[u8], modulus: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut modulus = Zeroizing::new(trim(modulus).to_vec());
    // Primes are odd, so nothing is borrowed.
    if let Some(last) = modulus.last_mut() {
        *last &= 0xFE;
    }
    // One octet more, for the bit that doubling may carry out.
    let mut rest = Zeroizing::new(vec![0u8; modulus.len() + 1]);
    modulus.insert(0, 0);
    if trim(&modulus).is_empty() {
        return rest;
    }
    for octet in number {
        for bit in (0..8).rev() {
            let mut carry = (octet >> bit) & 1;
            for digit in rest.iter_mut().rev() {
                let doubled = (u16::from(*digit) << 1) | u16::from(carry);
                [carry, *digit] = doubled.to_be_bytes();
            }
            if *rest >= *modulus {
                let mut borrow = false;
                for (digit, minus) in rest.iter_mut().rev().zip(modulus.iter().rev()) {
                    let (first, under1) = digit.overflowing_sub(*minus);
                    let (second, under2) = first.overflowing_sub(u8::from(borrow));
                    *digit = second;
                    borrow = under1 || under2;
                }
            }
        }
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn remainders_are_right(number: u128, prime in 3u64..) {
            let prime = prime | 1;
            let rest = remainder(&number.to_be_bytes(), &prime.to_be_bytes());
            let expected = (number % u128::from(prime - 1)).to_be_bytes();
            prop_assert_eq!(trim(&rest), trim(&expected));
        }
    }

    #[test]
    fn der_of_small_numbers() {
        // The textbook key: p = 53, q = 61, e = 17, d = 413, u = 1/53 mod 61 = 38.
        let key = RsaNumbers { n: &[0x0C, 0xA1], e: &[17], d: &[0x01, 0x9D], p: &[53], q: &[61], u: &[38] };
        let numbers = [2, 1, 0, 2, 2, 0x0C, 0xA1, 2, 1, 17, 2, 2, 0x01, 0x9D, 2, 1, 61, 2, 1, 53];
        // 413 mod 60 = 53, 413 mod 52 = 49, and u.
        let crt = [2, 1, 53, 2, 1, 49, 2, 1, 38];
        assert_eq!(*pkcs1(&key), [&[0x30, 29][..], &numbers, &crt].concat());
        let mut long = Vec::new();
        tagged(2, 300, &mut long);
        tagged(2, 200, &mut long);
        assert_eq!(long, [2, 0x82, 1, 44, 2, 0x81, 200]);
        let mut high = Vec::new();
        integer(&[0, 0x80], &mut high);
        assert_eq!(high, [2, 2, 0, 0x80]);
    }
}
