//! Connections: accepted, limited, decrypted, told apart (HTTP/1.1 or HTTP/2), handed to the journey.
