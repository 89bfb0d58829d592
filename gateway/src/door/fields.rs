//! What a client may not say about itself: fields that speak of identity, origin or the hop are ours to write.

/// Names that proxies, identity providers and services trust. Dropped on entry.
const RESERVED: [&str; 33] = [
    "forwarded",
    "via",
    "x-real-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "true-client-ip",
    "cf-connecting-ip",
    "fastly-client-ip",
    "x-remote-user",
    "x-remote-ip",
    "x-remote-addr",
    "x-host",
    "x-original-url",
    "x-original-host",
    "x-rewrite-url",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-endpoint-api-userinfo",
    "x-endpoint-api-operation-name",
    "x-client-cert",
    "ssl-client-cert",
    "x-authenticated-userid",
    "proxy-authorization",
    "x-original-uri",
    "x-original-method",
    "x-accel-redirect",
    "client-ip",
    "x-originating-ip",
    "x-scheme",
    "front-end-https",
    "x-proxyuser-ip",
    "x-remote-groups",
];

/// The same by prefix.
const RESERVED_PREFIXES: [&str; 7] = [
    "x-forwarded-",
    "x-tollgate-",
    "x-consumer-",
    "x-credential-",
    "x-envoy-",
    "x-ssl-",
    "x-auth-request-",
];

/// Whether a field from a client is dropped. `name` is lower case; `declared` are the operation's own header parameters.
///
/// A name with an underscore or a dot is dropped too unless the API declares it: many services fold `-`, `_` and `.` into one, so that
/// `x_forwarded_for` would pass for the field we write.
pub fn dropped<S: AsRef<str>>(name: &str, declared: &[S]) -> bool {
    let reserved = match name.as_bytes().first() {
        Some(b'x' | b'f' | b'v' | b't' | b'c' | b's' | b'p') => {
            RESERVED.contains(&name)
                || RESERVED_PREFIXES
                    .iter()
                    .any(|prefix| name.starts_with(prefix))
        }
        _ => false,
    };
    reserved || (name.contains('_') && !declared.iter().any(|declared| declared.as_ref() == name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identity_and_forwarding_fields_are_dropped() {
        for name in [
            "x-forwarded-for",
            "forwarded",
            "x-tollgate-consumer",
            "x-real-ip",
            "x_real_ip",
            "api_key",
        ] {
            assert!(dropped::<&str>(name, &[]), "{name}");
        }
    }

    #[test]
    fn the_rest_and_declared_names_pass() {
        assert!(!dropped("api_key", &["api_key"]));
        for name in [
            "accept",
            "authorization",
            "x-api-key",
            "content-type",
            "cookie",
            "traceparent",
        ] {
            assert!(!dropped::<&str>(name, &[]), "{name}");
        }
    }
}
