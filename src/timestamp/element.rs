//! Reading DER piece by piece, in the order in which it stands.

use x509_cert::der::asn1::{AnyRef, ObjectIdentifier};
use x509_cert::der::{self, Decode as _, Reader as _, SliceReader, Tag, Tagged as _};

/// One element: a tag, a length and a value.
#[derive(Clone, Copy, Debug)]
pub(super) struct Element<'a> {
    pub(super) tag: Tag,
    /// The bytes inside.
    pub(super) value: &'a [u8],
    /// All of its bytes.
    pub(super) whole: &'a [u8],
}

impl<'a> Element<'a> {
    /// Reads bytes that are one element, and nothing after it.
    pub(super) fn of(whole: &'a [u8]) -> der::Result<Self> {
        let any = AnyRef::from_der(whole)?;
        Ok(Self { tag: any.tag(), value: any.value(), whole })
    }

    /// Reads the elements inside of this one, which has this tag.
    pub(super) fn open(&self, tag: Tag) -> der::Result<std::vec::IntoIter<Self>> {
        if self.tag != tag {
            return Err(tag.value_error().into());
        }
        self.inside()
    }

    /// Reads the elements inside of this one.
    pub(super) fn inside(&self) -> der::Result<std::vec::IntoIter<Self>> {
        let mut reader = SliceReader::new(self.value)?;
        let mut found = Vec::new();
        while !reader.is_finished() {
            found.push(Self::of(reader.tlv_bytes()?)?);
        }
        Ok(found.into_iter())
    }

    /// Returns the value, if the element has this tag.
    pub(super) fn bytes(&self, tag: Tag) -> der::Result<&'a [u8]> {
        if self.tag == tag { Ok(self.value) } else { Err(tag.value_error().into()) }
    }

    /// Reads an object identifier.
    pub(super) fn oid(&self) -> der::Result<ObjectIdentifier> {
        ObjectIdentifier::from_der(self.whole)
    }

    /// Tells whether the element has the context-specific tag of this number.
    pub(super) fn is_context(&self, number: u32) -> bool {
        matches!(self.tag, Tag::ContextSpecific { number: found, .. } if found.value() == number)
    }
}

/// Returns the next element, which must be there.
pub(super) fn next<'a>(elements: &mut impl Iterator<Item = Element<'a>>) -> der::Result<Element<'a>> {
    elements.next().ok_or_else(|| Tag::Null.length_error().into())
}
