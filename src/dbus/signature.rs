//! Signatures: which types follow one another (D-Bus specification, "Type System").

/// Types whose values hold no other.
const BASIC: &[u8] = b"ybnqiuxtdsogh";
/// So many arrays may be in one another, and so many structs.
const MAX_NESTING: usize = 32;
const MAX_LENGTH: usize = 255;

/// Whether `signature` is none, one or several complete types.
pub fn is_valid(signature: &[u8]) -> bool {
    let mut rest = signature;
    while !rest.is_empty() {
        match first_type(rest) {
            Some(length) => rest = &rest[length..],
            None => return false,
        }
    }
    signature.len() <= MAX_LENGTH
}

/// Whether `signature` is exactly one complete type.
pub fn is_single(signature: &[u8]) -> bool {
    signature.len() <= MAX_LENGTH && first_type(signature) == Some(signature.len())
}

/// The length of the complete type that `signature` begins with; of an array's element, that may be a dict entry.
pub fn first_type(signature: &[u8]) -> Option<usize> {
    complete(signature, 0, 0)
}

/// The length of an array's element.
pub fn element(signature: &[u8]) -> Option<usize> {
    element_within(signature, 0, 0)
}

fn complete(signature: &[u8], arrays: usize, structs: usize) -> Option<usize> {
    match *signature.first()? {
        b'a' if arrays < MAX_NESTING => Some(1 + element_within(&signature[1..], arrays + 1, structs)?),
        b'(' if structs < MAX_NESTING => {
            let mut length = 1;
            while *signature.get(length)? != b')' {
                length += complete(&signature[length..], arrays, structs + 1)?;
            }
            // A struct has a field.
            (length > 1).then_some(length + 1)
        }
        b'v' => Some(1),
        code if BASIC.contains(&code) => Some(1),
        _ => None,
    }
}

fn element_within(signature: &[u8], arrays: usize, structs: usize) -> Option<usize> {
    if signature.first() != Some(&b'{') {
        return complete(signature, arrays, structs);
    }
    if structs >= MAX_NESTING || !BASIC.contains(signature.get(1)?) {
        return None;
    }
    let end = 2 + complete(&signature[2..], arrays, structs + 1)?;
    (*signature.get(end)? == b'}').then_some(end + 1)
}

/// What the offset of a value that begins with `code` is a multiple of.
pub fn alignment(code: u8) -> usize {
    match code {
        b'y' | b'g' | b'v' => 1,
        b'n' | b'q' => 2,
        b'x' | b't' | b'd' | b'(' | b'{' => 8,
        _ => 4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complete_types_are_told_from_broken_ones() {
        let nested = |open: &str, count: usize, close: &str| open.repeat(count) + "y" + &close.repeat(count);
        for valid in ["", "y", "as", "a(sv)", "ssa(sv)a(sa(sv))", "a{sv}", "a{ya{sv}}", "aaay", "(y(sa{sv}))v"] {
            assert!(is_valid(valid.as_bytes()), "{valid}");
        }
        assert!(is_valid(nested("a", 32, "").as_bytes()));
        assert!(is_valid(nested("(", 32, ")").as_bytes()));
        assert!(is_valid("y".repeat(255).as_bytes()));
        for invalid in
            ["a", "(", "()", "(y", "y)", "{sv}", "a{s}", "a{sv", "a{vs}", "a{(y)s}", "a{svs}", "z", "a()", "m", "\0"]
        {
            assert!(!is_valid(invalid.as_bytes()), "{invalid}");
        }
        assert!(!is_valid(nested("a", 33, "").as_bytes()));
        assert!(!is_valid(nested("(", 33, ")").as_bytes()));
        assert!(!is_valid("y".repeat(256).as_bytes()));
    }

    #[test]
    fn one_type_is_told_from_several() {
        assert!(["y", "as", "a{sv}", "(ss)"].iter().all(|one| is_single(one.as_bytes())));
        assert!(["", "yy", "ass", "{sv}", "(ss)y"].iter().all(|other| !is_single(other.as_bytes())));
    }
}
