//! The dictionary that SPDY's header compression begins with.

use std::sync::LazyLock;

/// The words of the dictionary, in its order (SPDY protocol, draft 3, section 2.6.10.1). In it each stands behind its length.
const WORDS: &str = "options|head|post|put|delete|trace|accept|accept-charset|accept-encoding|accept-language|accept-ranges|age|\
    allow|authorization|cache-control|connection|content-base|content-encoding|content-language|content-length|content-location|\
    content-md5|content-range|content-type|date|etag|expect|expires|from|host|if-match|if-modified-since|if-none-match|if-range|\
    if-unmodified-since|last-modified|location|max-forwards|pragma|proxy-authenticate|proxy-authorization|range|referer|\
    retry-after|server|te|trailer|transfer-encoding|upgrade|user-agent|vary|via|warning|www-authenticate|method|get|status|200 OK|\
    version|HTTP/1.1|url|public|set-cookie|keep-alive|origin";

/// What follows the words, without lengths: status codes without a text.
const CODES: &str =
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505";

/// What follows the codes.
const PHRASES: &str = "203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 \
    Forbidden404 Not Found500 Internal Server Error501 Not Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept \
    Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,application/xml,\
    application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,\
    enq=0.";

/// The dictionary.
pub(super) fn dictionary() -> &'static [u8] {
    static DICTIONARY: LazyLock<Vec<u8>> = LazyLock::new(|| {
        let mut bytes = Vec::with_capacity(1423);
        for word in WORDS.split('|') {
            // The longest has nineteen letters.
            bytes.extend_from_slice(&[0, 0, 0, word.len() as u8]);
            bytes.extend_from_slice(word.as_bytes());
        }
        bytes.extend_from_slice(CODES.as_bytes());
        bytes.extend_from_slice(PHRASES.as_bytes());
        bytes
    });
    &DICTIONARY
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dictionary_is_that_of_the_protocol() {
        let (mut a, mut b) = (1u32, 0u32);
        for byte in dictionary() {
            a = (a + u32::from(*byte)) % 65521;
            b = (b + a) % 65521;
        }
        // The checksum by which every implementation of SPDY/3 names its dictionary.
        assert_eq!(b << 16 | a, 0xe3c6_a7c2);
        assert_eq!(dictionary().len(), 1423);
    }
}
