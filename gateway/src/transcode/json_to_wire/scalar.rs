//! Single values: numbers, texts, bytes, enums, from JSON or from the text of a map key or a parameter.

use super::encoder::{Encoder, Slot};
use crate::transcode::base64;
use crate::transcode::codec_error::{CodecError, Fault};
use crate::transcode::decimal::{NotWhole, Whole};
use crate::transcode::json::number_length;
use crate::transcode::profile::{Profile, Unknown};
use crate::transcode::schema::{Enum, EnumId, Kind, Schema};
use crate::transcode::wire::{put_bytes, put_varint, zigzag};

impl Encoder<'_, '_> {
    /// A value that is no message. False if nothing was written, because an enum does not have it and that is to be ignored.
    #[inline]
    pub(super) fn scalar(&mut self, kind: Kind, slot: Slot) -> Result<bool, Fault> {
        match kind {
            Kind::String => self.string(slot)?,
            Kind::Bytes => self.bytes(slot)?,
            Kind::Bool => {
                let value = self.json.bool()?;
                put_bool(value, slot, &mut self.out.bytes);
            }
            Kind::Enum(id) => return self.enumeration(id, slot),
            Kind::Double | Kind::Float => self.float(kind, slot)?,
            Kind::Message(_) | Kind::Group(_) => return Err(no_scalar()),
            _ => self.integer(kind, slot)?,
        }
        Ok(true)
    }

    fn string(&mut self, slot: Slot) -> Result<(), Fault> {
        if let Some(text) = self.json.plain_text()? {
            put_string(text, slot, &mut self.out.bytes);
            return Ok(());
        }
        slot.put(&mut self.out.bytes);
        let opened = self.out.open();
        self.json.text_into(&mut self.out.bytes)?;
        self.out.close(opened);
        Ok(())
    }

    fn bytes(&mut self, slot: Slot) -> Result<(), Fault> {
        let text = self.json.text()?;
        let before = self.out.mark();
        slot.put(&mut self.out.bytes);
        let opened = self.out.open();
        if !base64::decode(&text, &mut self.out.bytes) {
            return Err(CodecError::fault("no valid base64"));
        }
        if self.out.is_empty_since(opened) && !slot.keeps_default {
            self.out.undo(before);
        } else {
            self.out.close(opened);
        }
        Ok(())
    }

    fn integer(&mut self, kind: Kind, slot: Slot) -> Result<(), Fault> {
        if self.json.peek() == b'"' {
            let text = self.json.text()?;
            return put_integer(kind, number_of(&text)?, slot, &mut self.out.bytes);
        }
        let number = self.json.number()?;
        put_integer(kind, number, slot, &mut self.out.bytes)
    }

    fn float(&mut self, kind: Kind, slot: Slot) -> Result<(), Fault> {
        if self.json.peek() == b'"' {
            let text = self.json.text()?;
            return put_float_text(kind, &text, slot, &mut self.out.bytes);
        }
        let number = self.json.number()?;
        put_float(kind, number, slot, &mut self.out.bytes)
    }

    fn enumeration(&mut self, id: EnumId, slot: Slot) -> Result<bool, Fault> {
        let definition = self.schema.enum_of(id);
        let number = match self.json.peek() {
            b'"' => {
                let name = self.json.text()?;
                match named(definition, &name, &self.profile) {
                    Some(number) => number,
                    None if self.profile.unknown == Unknown::Ignore => return Ok(false),
                    None => return Err(no_such_value(definition, &name)),
                }
            }
            b'-' | b'0'..=b'9' => numbered(definition, self.json.number()?)?,
            b'n' if definition.is_null => {
                self.json.null()?;
                0
            }
            _ => return Err(self.json.unexpected("the name of an enum value")),
        };
        put_enum(number, slot, &mut self.out.bytes);
        Ok(true)
    }
}

/// A value that is written as text: the key of a map, a parameter.
pub(super) fn put_text(
    schema: &Schema,
    profile: &Profile,
    kind: Kind,
    text: &str,
    slot: Slot,
    out: &mut Vec<u8>,
) -> Result<(), Fault> {
    match kind {
        Kind::String => put_string(text, slot, out),
        Kind::Bytes => {
            let mut bytes = Vec::new();
            if !base64::decode(text, &mut bytes) {
                return Err(CodecError::fault("no valid base64"));
            }
            if slot.keeps_default || !bytes.is_empty() {
                slot.put(out);
                put_bytes(out, &bytes);
            }
        }
        Kind::Bool => match text {
            "true" => put_bool(true, slot, out),
            "false" => put_bool(false, slot, out),
            _ => return Err(CodecError::fault("expected true or false")),
        },
        Kind::Enum(id) => {
            let definition = schema.enum_of(id);
            let number = match named(definition, text, profile) {
                Some(number) => number,
                None if number_length(text.as_bytes()) == Some(text.len()) => {
                    numbered(definition, text)?
                }
                None => return Err(no_such_value(definition, text)),
            };
            put_enum(number, slot, out);
        }
        Kind::Double | Kind::Float => put_float_text(kind, text, slot, out)?,
        Kind::Message(_) | Kind::Group(_) => return Err(no_scalar()),
        _ => put_integer(kind, number_of(text)?, slot, out)?,
    }
    Ok(())
}

/// A text that is a number from end to end.
fn number_of(text: &str) -> Result<&str, Fault> {
    if number_length(text.as_bytes()) != Some(text.len()) {
        return Err(CodecError::fault("expected a number"));
    }
    Ok(text)
}

fn put_string(text: &str, slot: Slot, out: &mut Vec<u8>) {
    if slot.keeps_default || !text.is_empty() {
        slot.put(out);
        put_bytes(out, text.as_bytes());
    }
}

fn put_bool(value: bool, slot: Slot, out: &mut Vec<u8>) {
    if slot.keeps_default || value {
        slot.put(out);
        out.push(u8::from(value));
    }
}

#[inline]
fn put_integer(kind: Kind, number: &str, slot: Slot, out: &mut Vec<u8>) -> Result<(), Fault> {
    let whole = Whole::of(number).map_err(|not| match not {
        NotWhole::Fraction => CodecError::fault("expected a whole number"),
        NotWhole::TooLarge => out_of_range(kind),
    })?;
    let narrow = || whole.signed(i64::from(i32::MIN), i64::from(i32::MAX));
    let wide = || whole.signed(i64::MIN, i64::MAX);
    let bits = match kind {
        Kind::Int32 | Kind::Sfixed32 => narrow().map(i64::cast_unsigned),
        Kind::Sint32 => narrow().map(zigzag),
        Kind::Uint32 | Kind::Fixed32 => whole.unsigned(u64::from(u32::MAX)),
        Kind::Int64 | Kind::Sfixed64 => wide().map(i64::cast_unsigned),
        Kind::Sint64 => wide().map(zigzag),
        _ => whole.unsigned(u64::MAX),
    };
    let bits = bits.ok_or_else(|| out_of_range(kind))?;
    if bits == 0 && !slot.keeps_default {
        return Ok(());
    }
    slot.put(out);
    match kind {
        // The low half is the number, whatever its sign.
        Kind::Fixed32 | Kind::Sfixed32 => out.extend_from_slice(&(bits as u32).to_le_bytes()),
        Kind::Fixed64 | Kind::Sfixed64 => out.extend_from_slice(&bits.to_le_bytes()),
        _ => put_varint(out, bits),
    }
    Ok(())
}

fn put_float_text(kind: Kind, text: &str, slot: Slot, out: &mut Vec<u8>) -> Result<(), Fault> {
    let special = match text {
        "NaN" => f64::NAN,
        "Infinity" => f64::INFINITY,
        "-Infinity" => f64::NEG_INFINITY,
        _ => return put_float(kind, number_of(text)?, slot, out),
    };
    slot.put(out);
    match kind {
        Kind::Float if special.is_nan() => out.extend_from_slice(&f32::NAN.to_le_bytes()),
        Kind::Float if special > 0.0 => out.extend_from_slice(&f32::INFINITY.to_le_bytes()),
        Kind::Float => out.extend_from_slice(&f32::NEG_INFINITY.to_le_bytes()),
        _ => out.extend_from_slice(&special.to_le_bytes()),
    }
    Ok(())
}

/// A valid JSON number, rounded once: by way of a double, a float would be rounded twice.
fn put_float(kind: Kind, number: &str, slot: Slot, out: &mut Vec<u8>) -> Result<(), Fault> {
    if kind == Kind::Float {
        let value: f32 = number.parse().unwrap_or(f32::INFINITY);
        if value.is_infinite() {
            return Err(out_of_range(kind));
        }
        if slot.keeps_default || value.to_bits() != 0 {
            slot.put(out);
            out.extend_from_slice(&value.to_le_bytes());
        }
        return Ok(());
    }
    let value = double_of(number)?;
    if slot.keeps_default || value.to_bits() != 0 {
        slot.put(out);
        out.extend_from_slice(&value.to_le_bytes());
    }
    Ok(())
}

/// The double nearest to a valid JSON number.
#[inline]
pub(super) fn double_of(number: &str) -> Result<f64, Fault> {
    match number.parse::<f64>() {
        Ok(value) if value.is_finite() => Ok(value),
        _ => Err(out_of_range(Kind::Double)),
    }
}

fn put_enum(number: i32, slot: Slot, out: &mut Vec<u8>) {
    if slot.keeps_default || number != 0 {
        slot.put(out);
        put_varint(out, i64::from(number).cast_unsigned());
    }
}

fn named(definition: &Enum, name: &str, profile: &Profile) -> Option<i32> {
    let found = definition.by_name(name, profile.strip_enum_prefix, profile.any_case_enums);
    found.map(|value| value.number)
}

fn numbered(definition: &Enum, number: &str) -> Result<i32, Fault> {
    let whole = Whole::of(number).ok();
    let value = whole.and_then(|whole| whole.signed(i64::from(i32::MIN), i64::from(i32::MAX)));
    let value = value.and_then(|value| i32::try_from(value).ok());
    match value {
        Some(value) if definition.is_open || definition.by_number(value).is_some() => Ok(value),
        _ => Err(no_such_value(definition, number)),
    }
}

#[cold]
fn no_such_value(definition: &Enum, given: &str) -> Fault {
    let given: String = given.chars().take(60).collect();
    CodecError::fault(format!("{} has no value `{given}`", definition.name))
}

#[cold]
fn out_of_range(kind: Kind) -> Fault {
    CodecError::fault(match kind {
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => "out of the range of 32 bits with sign",
        Kind::Uint32 | Kind::Fixed32 => "out of the range of 32 bits without sign",
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => "out of the range of 64 bits with sign",
        Kind::Float => "out of the range of a float",
        Kind::Double => "out of the range of a double",
        _ => "out of the range of 64 bits without sign",
    })
}

#[cold]
fn no_scalar() -> Fault {
    CodecError::fault("a message cannot be written as a single value")
}
