//! POSIX extended regular expressions of the C library (regex(3)), which crun's `--regex` takes.

use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;

/// A compiled expression.
pub struct Regex(libc::regex_t);

impl Regex {
    /// # Errors
    /// What is wrong with `pattern`.
    pub fn new(pattern: &str) -> Result<Self, String> {
        let pattern = CString::new(pattern).map_err(|_| "it holds a NUL".to_owned())?;
        let mut compiled = MaybeUninit::uninit();
        // SAFETY: `pattern` is a C string; regcomp writes the expression that `compiled` has room for.
        let code =
            unsafe { libc::regcomp(compiled.as_mut_ptr(), pattern.as_ptr(), libc::REG_EXTENDED | libc::REG_NOSUB) };
        if code != 0 {
            return Err(describe(code));
        }
        // SAFETY: regcomp returned 0, so the expression is complete.
        Ok(Self(unsafe { compiled.assume_init() }))
    }

    pub fn matches(&self, text: &str) -> bool {
        let Ok(text) = CString::new(text) else { return false };
        // SAFETY: the expression is compiled, `text` is a C string, and no places of matches are asked for.
        unsafe { libc::regexec(&raw const self.0, text.as_ptr(), 0, std::ptr::null_mut(), 0) == 0 }
    }
}

impl Drop for Regex {
    fn drop(&mut self) {
        // SAFETY: it was compiled and is freed once.
        unsafe { libc::regfree(&raw mut self.0) }
    }
}

fn describe(code: libc::c_int) -> String {
    let mut text = [0u8; 128];
    // SAFETY: regerror writes at most the given length, NUL included; no expression is needed for the text.
    unsafe { libc::regerror(code, std::ptr::null(), text.as_mut_ptr().cast(), text.len()) };
    CStr::from_bytes_until_nul(&text).map(|text| text.to_string_lossy().into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_parts_and_explains_mistakes() {
        let regex = Regex::new("^web-[0-9]+$").unwrap();
        assert!(regex.matches("web-12") && !regex.matches("web-x"));
        assert!(Regex::new("a(").err().unwrap().to_lowercase().contains("("));
    }
}
