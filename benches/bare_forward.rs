//! The floor of the comparison: pingora's own server and proxy, one forward to one address, nothing else.
//!
//! `bare_forward LISTEN UPSTREAM THREADS`. It keeps connections on both sides and shares Tollgate's allocator, so that what lies
//! between the two is what Tollgate does itself. It judges, classifies, counts and logs nothing.

#![allow(missing_docs, reason = "a bench has no readers of its interface")]

use async_trait::async_trait;
use pingora_core::server::Server;
use pingora_core::server::configuration::ServerConf;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_error::Result;
use pingora_proxy::{ProxyHttp, Session, http_proxy_service};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

struct Forward {
    upstream: String,
}

#[async_trait]
impl ProxyHttp for Forward {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn upstream_peer(&self, _: &mut Session, _: &mut ()) -> Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new(
            self.upstream.as_str(),
            false,
            String::new(),
        )))
    }
}

fn main() -> anyhow::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [listen, upstream, threads] = words.as_slice() else {
        anyhow::bail!("usage: bare_forward LISTEN UPSTREAM THREADS");
    };
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let conf = ServerConf {
        threads: threads.parse()?,
        ..ServerConf::default()
    };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    let forward = Forward {
        upstream: upstream.clone(),
    };
    let mut service = http_proxy_service(&server.configuration, forward);
    service.add_tcp(listen);
    server.add_service(service);
    server.run_forever()
}
