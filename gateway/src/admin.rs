//! The node's admin port: `/livez /readyz /metrics /apis /config`, loopback by default, Host and Origin checked.
