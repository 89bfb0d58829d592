//! What only a sidecar adds to the engine: the instance of a service it stands beside.
