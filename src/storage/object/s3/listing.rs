//! Pages of a listing (`ListObjectsV2`), in rust-s3's shape.
//!
//! Keys come URL-encoded (`encoding-type=url`), so that blanks at their ends and characters that XML cannot hold survive
//! every parser on the way. A server that does not know this parameter leaves `EncodingType` out and keys as they are.

use std::borrow::Cow;

use jiff::Timestamp;
use s3::{serde_types::ListBucketResult, signing::uri_encode};

use super::{
    super::{ObjectInfo, Version},
    bare,
};

/// One page.
pub(super) struct Page {
    pub(super) objects: Vec<ObjectInfo>,
    /// Prefixes up to the next slash, of a query for folders.
    pub(super) folders: Vec<String>,
    /// Where the next one begins.
    pub(super) next: Option<String>,
}

/// The query for a page, encoded.
pub(super) fn query(prefix: &str, token: Option<&str>) -> String {
    let token =
        token.map_or(String::new(), |token| format!("continuation-token={}&", uri_encode(token, true)));
    format!("{token}encoding-type=url&list-type=2&prefix={}", uri_encode(prefix, true))
}

/// The query for a page of what is directly below a prefix.
pub(super) fn query_folders(prefix: &str, token: Option<&str>) -> String {
    query(prefix, token).replacen("encoding-type=", "delimiter=%2F&encoding-type=", 1)
}

pub(super) fn parse(body: &[u8]) -> Result<Page, String> {
    let bad = |problem: &dyn std::fmt::Display| format!("the listing cannot be read: {problem}");
    let text = std::str::from_utf8(body).map_err(|error| bad(&error))?;
    let result: ListBucketResult = quick_xml::de::from_str(text).map_err(|error| bad(&error))?;
    let is_encoded = result.encoding_type.as_deref() == Some("url");
    let objects = result.contents.into_iter().map(|object| {
        let key = if is_encoded { decode(&object.key).ok_or("a key is no UTF-8")? } else { object.key };
        let modified: Timestamp = object.last_modified.parse().map_err(|_| "a time is none")?;
        let version = Version::new(bare(object.e_tag.as_deref().unwrap_or_default()));
        let modified_ms = u64::try_from(modified.as_millisecond()).unwrap_or_default();
        Ok(ObjectInfo { key, size: object.size, modified_ms, version })
    });
    let objects = objects.collect::<Result<_, &str>>().map_err(|error| bad(&error))?;
    let folders = result.common_prefixes.unwrap_or_default().into_iter().map(|folder| {
        if is_encoded { decode(&folder.prefix).ok_or("a key is no UTF-8") } else { Ok(folder.prefix) }
    });
    let folders = folders.collect::<Result<_, &str>>().map_err(|error| bad(&error))?;
    let next = result.next_continuation_token.filter(|token| result.is_truncated && !token.is_empty());
    if result.is_truncated && next.is_none() {
        return Err(bad(&"it is cut short and does not say where it goes on"));
    }
    Ok(Page { objects, folders, next })
}

/// Blanks may be `+`; a plus is `%2B` then.
fn decode(text: &str) -> Option<String> {
    let text = if text.contains('+') { Cow::Owned(text.replace('+', " ")) } else { Cow::Borrowed(text) };
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, behind)) = rest.split_first() {
        match (first, behind) {
            (b'%', [high, low, behind @ ..]) => {
                let digit =
                    |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
                bytes.push(digit(*high)? << 4 | digit(*low)?);
                rest = behind;
            }
            (b'%', _) => return None,
            _ => {
                bytes.push(first);
                rest = behind;
            }
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "<?xml version=\"1.0\"?><ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
        <Name>b</Name><Prefix></Prefix><KeyCount>1</KeyCount><MaxKeys>1000</MaxKeys>";

    fn page(rest: &str) -> Result<Page, String> {
        parse(format!("{HEAD}{rest}</ListBucketResult>").as_bytes())
    }

    fn contents(key: &str) -> String {
        format!(
            "<Contents><Key>{key}</Key><LastModified>2026-01-02T03:04:05.678Z</LastModified>\
             <ETag>&quot;abc&quot;</ETag><Size>7</Size></Contents>"
        )
    }

    #[test]
    fn a_page_has_keys_sizes_times_and_versions() {
        let encoded = format!(
            "<EncodingType>url</EncodingType><IsTruncated>false</IsTruncated>{}",
            contents("a%2Fb+c%2B%C3%BC")
        );
        let page = page(&encoded).unwrap();
        assert_eq!(page.objects.len(), 1);
        let object = &page.objects[0];
        assert_eq!((object.key.as_str(), object.size, object.version.as_str()), ("a/b c+ü", 7, "abc"));
        assert_eq!(object.modified_ms, 1_767_323_045_678);
        assert_eq!(page.next, None);
    }

    #[test]
    fn folders_are_what_is_common_up_to_the_next_slash() {
        let folder = "<EncodingType>url</EncodingType><IsTruncated>false</IsTruncated>\
            <CommonPrefixes><Prefix>sessions/a%2Bb/</Prefix></CommonPrefixes>\
            <CommonPrefixes><Prefix>sessions/c/</Prefix></CommonPrefixes>";
        assert_eq!(page(folder).unwrap().folders, ["sessions/a+b/", "sessions/c/"]);
        assert!(page("<IsTruncated>false</IsTruncated>").unwrap().folders.is_empty());
        let query = query_folders("sessions/", Some("t"));
        assert_eq!(
            query,
            "continuation-token=t&delimiter=%2F&encoding-type=url&list-type=2&prefix=sessions%2F"
        );
    }

    #[test]
    fn without_encoding_keys_are_as_they_are() {
        let page = page(&format!("<IsTruncated>false</IsTruncated>{}", contents("a%2Fb+c"))).unwrap();
        assert_eq!(page.objects[0].key, "a%2Fb+c");
    }

    #[test]
    fn a_page_that_is_cut_short_must_say_where_it_goes_on() {
        let next = "<IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>";
        assert_eq!(page(next).unwrap().next.as_deref(), Some("t"));
        assert!(page("<IsTruncated>true</IsTruncated>").is_err());
        assert!(parse(b"<html>").is_err() && parse(b"\xff").is_err());
    }

    #[test]
    fn bad_escapes_are_refused() {
        assert_eq!(decode("a%2"), None);
        assert_eq!(decode("a%zz"), None);
        assert_eq!(decode("%ff"), None);
        assert_eq!(decode("%25+"), Some("% ".to_owned()));
    }

    #[test]
    fn queries_are_sorted_and_encoded() {
        assert_eq!(
            query("a b/", Some("x/y=")),
            "continuation-token=x%2Fy%3D&encoding-type=url&list-type=2&prefix=a%20b%2F"
        );
    }
}
