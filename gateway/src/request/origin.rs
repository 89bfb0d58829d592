//! Pages of other sites that open WebSockets: browsers let any page do it, and add what they hold for this host (RFC 6455, section 10.2).
//!
//! Judged where a browser adds the credential by itself, where a WebSocket becomes a gRPC call, and for every WebSocket of an API whose
//! file names origins. Who sends no `Origin` is no browser. Not here: what a service makes of cookies of its own.

use http::header::{ORIGIN, UPGRADE};
use pingora_http::RequestHeader;
use tollgate_policy::access::{CredentialPlace, Demand};

use crate::denial::{Denial, Forbidden};
use crate::door::asked::raw_host;
use crate::identity::shown::shown;
use crate::identity::{Identified, Request};
use crate::journey::Called;

/// Refuses a page of another site that may not.
pub(super) fn judge(
    called: &Called,
    identified: &Identified,
    request: Request<'_>,
) -> Result<(), Denial> {
    let operation = called.api.operations.get(called.operation);
    let transcoded = called.api.face.is_some();
    if !transcoded && !operation.is_some_and(|it| it.settings.websocket) {
        return Ok(());
    }
    // The gateway that admitted it saw what the browser said to it.
    if !asks_for_websocket(request.head) || identified.admitted_by.is_some() {
        return Ok(());
    }
    let named = &called.api.config.websocket_origins;
    if named.is_empty() && !transcoded && !by_browser(called, identified, request) {
        return Ok(());
    }
    let host = raw_host(request.head);
    let mut pages = request.head.headers.get_all(ORIGIN).iter();
    let admitted = pages.all(|page| {
        page.to_str().is_ok_and(|page| {
            is_same_site(page, host) || named.iter().any(|pattern| pattern.admits(page))
        })
    });
    if admitted {
        Ok(())
    } else {
        Err(Denial::NotPermitted(Forbidden::Origin))
    }
}

fn asks_for_websocket(head: &RequestHeader) -> bool {
    let said = head.headers.get_all(UPGRADE).iter();
    let mut said = said
        .filter_map(|it| it.to_str().ok())
        .flat_map(|it| it.split(','));
    said.any(|it| it.trim().eq_ignore_ascii_case("websocket"))
}

/// The scheme is not compared: TLS may end before us.
fn is_same_site(page: &str, host: Option<&str>) -> bool {
    let authority = page.split_once("://").map(|(_, authority)| authority);
    authority.is_some_and(|it| host.is_some_and(|host| it.eq_ignore_ascii_case(host)))
}

/// Whether a credential is there that browsers add without being told to.
fn by_browser(called: &Called, identified: &Identified, request: Request<'_>) -> bool {
    if identified.identity.certificate.is_some() {
        return true;
    }
    let access = &called.api.access;
    let demand = access.operations.get(called.operation);
    let Some(Demand::Alternatives { combinations, .. }) = demand.map(|it| &it.demand) else {
        return false;
    };
    let demanded = combinations.iter().flatten();
    let mut places = demanded.filter_map(|it| Some(&access.schemes.get(it.scheme)?.place));
    places.any(|place| {
        matches!(place, CredentialPlace::Cookie(_) | CredentialPlace::Basic)
            && !matches!(shown(request.head, request.query, place), Ok(None))
    })
}
