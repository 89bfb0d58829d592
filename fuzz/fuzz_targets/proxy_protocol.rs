//! Any bytes as a PROXY protocol header: the header is the same however it arrives and whatever follows it, and text is
//! accepted in one spelling only.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tollgate_gateway::listener::proxy_protocol::parse;

fuzz_target!(|bytes: &[u8]| {
    let whole = parse(bytes);
    let first = (0..=bytes.len()).find_map(|end| match parse(&bytes[..end]) {
        Ok(None) => None,
        decided => Some(decided),
    });
    match (whole, first) {
        (Ok(None), None) => {}
        (Ok(Some((client, length))), Some(Ok(Some(early)))) => {
            assert_eq!((client, length), early, "what follows changes nothing");
            assert!(length <= bytes.len());
            if let (Some(client), Some(text)) = (client, bytes[..length].strip_prefix(b"PROXY TCP"))
            {
                let text = std::str::from_utf8(text).expect("a line accepted is text");
                let words: Vec<&str> = text.trim_end().split(' ').collect();
                assert_eq!(words.len(), 5);
                assert_eq!(words[1].parse(), Ok(client.ip()));
                assert_eq!(words[3], client.port().to_string());
            }
        }
        (Err(_), Some(Err(_))) => {}
        (whole, first) => panic!("as a whole {whole:?}, piece by piece {first:?}"),
    }
});
