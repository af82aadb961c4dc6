//! Whatever decodes as a stanza is written and read again unchanged (texts may come back as bytes).

#![no_main]

use libfuzzer_sys::fuzz_target;
use whatsapp_worker::whatsapp::{
    binary::{Node, decode, encode},
    jid::Jid,
};

fuzz_target!(|data: &[u8]| {
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(jid) = text.parse::<Jid>()
    {
        assert_eq!(jid.to_string().parse(), Ok(jid));
    }
    let Ok(node) = decode(data) else { return };
    let _ = node.to_string();
    let once = encode(&node);
    let again = decode(&once).expect("what we write can be read");
    assert_eq!(shape(&node), shape(&again));
    assert_eq!(once, encode(&again), "writing is stable");
});

/// Tag, number of children and content length, which no change of form may alter.
fn shape(node: &Node) -> (String, Vec<usize>, Option<usize>) {
    let children = node.children().iter().map(|child| child.children().len()).collect();
    (node.tag.to_string(), children, node.content_bytes().map(<[u8]>::len))
}
