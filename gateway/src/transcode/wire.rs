//! The primitives of the protobuf wire format: varints, tags, fields one after the other.
//!
//! Reads anything the format allows, over-long varints and groups included, and refuses the rest without a panic. Not here: what a
//! field means (`schema`).

use super::DEEPEST;

/// The greatest field number.
pub(crate) const LAST_NUMBER: u32 = (1 << 29) - 1;

/// What follows a tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WireType {
    Varint = 0,
    Fixed64 = 1,
    Bytes = 2,
    GroupStart = 3,
    GroupEnd = 4,
    Fixed32 = 5,
}

impl WireType {
    fn of(tag: u32) -> Option<Self> {
        Some(match tag & 7 {
            0 => Self::Varint,
            1 => Self::Fixed64,
            2 => Self::Bytes,
            3 => Self::GroupStart,
            4 => Self::GroupEnd,
            5 => Self::Fixed32,
            _ => return None,
        })
    }
}

/// One value as it stands on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    /// With a length before it: text, bytes, a message, packed numbers.
    Bytes(&'a [u8]),
    /// What stands between the tags that open and close a group.
    Group(&'a [u8]),
}

/// Bytes that are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed(pub(crate) &'static str);

const CUT: Malformed = Malformed("the message ends in the middle of a field");

/// The fields of a message, in the order they stand.
#[derive(Clone, Debug)]
pub(crate) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(crate) const fn of(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    /// The number and value of the next field; `None` at the end.
    #[inline]
    pub(crate) fn next(&mut self) -> Result<Option<(u32, Value<'a>)>, Malformed> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let (number, wire_type) = read_tag(&mut self.rest)?;
        let value = match wire_type {
            WireType::Varint => Value::Varint(read_varint(&mut self.rest)?),
            WireType::Bytes => Value::Bytes(read_bytes(&mut self.rest)?),
            WireType::Fixed64 => Value::Fixed64(read_fixed64(&mut self.rest)?),
            WireType::Fixed32 => Value::Fixed32(read_fixed32(&mut self.rest)?),
            WireType::GroupStart => Value::Group(read_group(&mut self.rest, number)?),
            WireType::GroupEnd => return Err(Malformed("the end of a group that was not begun")),
        };
        Ok(Some((number, value)))
    }

    /// What has not been read.
    pub(crate) const fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

#[inline]
fn read_tag(from: &mut &[u8]) -> Result<(u32, WireType), Malformed> {
    let tag = read_varint(from)?;
    let tag = u32::try_from(tag).map_err(|_| Malformed("a field number is too large"))?;
    let wire_type = WireType::of(tag).ok_or(Malformed("a wire type that does not exist"))?;
    match tag >> 3 {
        0 => Err(Malformed("field number 0")),
        number => Ok((number, wire_type)),
    }
}

/// A varint of up to ten bytes; bits beyond 64 are dropped, as every reader does.
#[inline]
pub(crate) fn read_varint(from: &mut &[u8]) -> Result<u64, Malformed> {
    match from.split_first() {
        Some((&byte, rest)) if byte < 0x80 => {
            *from = rest;
            Ok(u64::from(byte))
        }
        Some(_) => read_long_varint(from),
        None => Err(CUT),
    }
}

fn read_long_varint(from: &mut &[u8]) -> Result<u64, Malformed> {
    let mut value = 0;
    for (at, &byte) in from.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte < 0x80 {
            *from = from.get(at + 1..).unwrap_or_default();
            return Ok(value);
        }
    }
    Err(if from.len() < 10 {
        CUT
    } else {
        Malformed("a varint longer than ten bytes")
    })
}

/// Bytes with their length before them.
#[inline]
pub(crate) fn read_bytes<'a>(from: &mut &'a [u8]) -> Result<&'a [u8], Malformed> {
    let length = usize::try_from(read_varint(from)?).map_err(|_| CUT)?;
    let (bytes, rest) = from.split_at_checked(length).ok_or(CUT)?;
    *from = rest;
    Ok(bytes)
}

#[inline]
pub(crate) fn read_fixed64(from: &mut &[u8]) -> Result<u64, Malformed> {
    let (bytes, rest) = from.split_first_chunk().ok_or(CUT)?;
    *from = rest;
    Ok(u64::from_le_bytes(*bytes))
}

#[inline]
pub(crate) fn read_fixed32(from: &mut &[u8]) -> Result<u32, Malformed> {
    let (bytes, rest) = from.split_first_chunk().ok_or(CUT)?;
    *from = rest;
    Ok(u32::from_le_bytes(*bytes))
}

/// What stands before the end of group `number`, which is read as well.
fn read_group<'a>(from: &mut &'a [u8], number: u32) -> Result<&'a [u8], Malformed> {
    let start = *from;
    let mut open = vec![number];
    while let Some(&innermost) = open.last() {
        let before = *from;
        let (number, wire_type) = read_tag(from)?;
        match wire_type {
            WireType::Varint => drop(read_varint(from)?),
            WireType::Bytes => drop(read_bytes(from)?),
            WireType::Fixed64 => drop(read_fixed64(from)?),
            WireType::Fixed32 => drop(read_fixed32(from)?),
            WireType::GroupStart if open.len() >= DEEPEST as usize => {
                return Err(Malformed("nested too deep"));
            }
            WireType::GroupStart => open.push(number),
            WireType::GroupEnd if number != innermost => {
                return Err(Malformed("the end of a group that was not begun"));
            }
            WireType::GroupEnd => {
                open.pop();
                if open.is_empty() {
                    return Ok(start.get(..start.len() - before.len()).unwrap_or_default());
                }
            }
        }
    }
    Ok(&[])
}

/// How many bytes `value` takes as a varint.
pub(crate) const fn varint_length(value: u64) -> usize {
    (70 - (value | 1).leading_zeros() as usize) / 7
}

#[inline]
pub(crate) fn put_varint(out: &mut Vec<u8>, value: u64) {
    if value < 0x80 {
        out.push(low_seven(value));
    } else {
        put_long_varint(out, value);
    }
}

/// Put together first: room in the output is asked for once.
fn put_long_varint(out: &mut Vec<u8>, mut value: u64) {
    let mut bytes = [0; 10];
    let mut length = 0;
    for byte in &mut bytes {
        length += 1;
        *byte = low_seven(value);
        value >>= 7;
        if value == 0 {
            break;
        }
        *byte |= 0x80;
    }
    out.extend_from_slice(bytes.get(..length).unwrap_or_default());
}

#[inline]
pub(crate) const fn low_seven(value: u64) -> u8 {
    (value & 0x7f) as u8
}

pub(crate) fn put_tag(out: &mut Vec<u8>, number: u32, wire_type: WireType) {
    put_varint(out, u64::from(number) << 3 | wire_type as u64);
}

pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Small negative numbers as small numbers.
#[inline]
pub(crate) const fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

#[inline]
pub(crate) const fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -(value & 1).cast_signed()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn all(message: &[u8]) -> Result<Vec<(u32, Value<'_>)>, Malformed> {
        let mut fields = Fields::of(message);
        let mut found = Vec::new();
        while let Some(field) = fields.next()? {
            found.push(field);
        }
        Ok(found)
    }

    #[test]
    fn varints_are_read_however_long_they_are() {
        for value in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX] {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, value);
            assert_eq!(bytes.len(), varint_length(value));
            assert_eq!(read_varint(&mut bytes.as_slice()), Ok(value));
        }
        assert_eq!(read_varint(&mut [0x81, 0x80, 0x80, 0].as_slice()), Ok(1));
        assert!(read_varint(&mut [0x80; 10].as_slice()).is_err());
        assert_eq!(read_varint(&mut [0x80; 9].as_slice()), Err(CUT));
    }

    #[test]
    fn a_group_ends_with_its_own_number() {
        let nested = [0x0b, 0x13, 0x08, 1, 0x14, 0x0c, 0x18, 7];
        let expected = vec![(1, Value::Group(&nested[1..5])), (3, Value::Varint(7))];
        assert_eq!(all(&nested), Ok(expected));
        assert!(all(&[0x0b, 0x14]).is_err());
        assert!(all(&[0x0b]).is_err());
        assert!(all(&[0x0c]).is_err());
        let deep = [0x0b; 5000];
        assert_eq!(all(&deep), Err(Malformed("nested too deep")));
    }

    #[test]
    fn what_is_no_message_is_refused() {
        let bad: [&[u8]; 7] = [
            &[0x00, 0x00],
            &[0x06],
            &[0x07],
            &[0x0a, 0x02, 0x00],
            &[0x0d, 0, 0, 0],
            &[0x09, 0, 0, 0, 0, 0, 0, 0],
            &[
                0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01,
            ],
        ];
        for message in bad {
            assert!(all(message).is_err(), "{message:?}");
        }
    }

    #[test]
    fn zigzag_is_turned_back() {
        for value in [0, -1, 1, i64::MIN, i64::MAX] {
            assert_eq!(unzigzag(zigzag(value)), value);
        }
        assert_eq!(zigzag(-1), 1);
    }
}
