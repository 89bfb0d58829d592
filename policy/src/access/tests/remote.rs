//! Decisions for those who tell only part of a call.

use super::*;
use crate::credentials::Digest;
use crate::directory::CredentialRef;
use crate::settings::{AuthoriserConfig, AuthoriserTransport, FailureMode};

/// Why nobody passes who shows this and tells what the world knows; `None`: it passes.
fn shown(world: &World, credential: &CredentialRef) -> Option<WhyNot> {
    let (scopes, roles) = match &world.claims {
        Some(claims) => (&claims.scopes[..], &claims.roles[..]),
        None => (&[][..], &[][..]),
    };
    let decided = world.ask(|access, identity, circumstances| {
        let told = Told {
            credential,
            caller: identity.caller.as_ref().unwrap(),
            scopes,
            roles,
            client: circumstances.client,
            referrer: circumstances.referrer,
        };
        decide_remote(
            access,
            "bookstore",
            world.operation,
            told,
            circumstances.now,
        )
    });
    decided.err()
}

/// The same of a key.
pub(super) fn told(world: &World) -> Option<WhyNot> {
    shown(world, &CredentialRef::Key(Digest([1; 32])))
}

fn login(issuer: &str) -> CredentialRef {
    CredentialRef::Login {
        issuer: arc(issuer),
        client: arc("app"),
    }
}

#[test]
fn a_token_needs_an_issuer_that_counts_and_the_scopes() {
    let mut world = World::new();
    world.operation = ADD;
    let staff = findings::issuer("staff");
    let shown_by = |world: &World| shown(world, &login("https://staff.example.com"));
    assert_eq!(shown_by(&world), Some(WhyNot::Undecidable), "whose tokens?");
    world.config.auth.issuers.insert(arc("staff"), staff);
    let lacking = WhyNot::Scope(arc("books.write"));
    assert_eq!(shown_by(&world), Some(lacking), "none was told");
    world.claims = Some(token());
    assert_eq!(shown_by(&world), None);
    let stranger = login("https://elsewhere.example.com");
    assert_eq!(shown(&world, &stranger), Some(WhyNot::Undecidable));
    // Its roles count where rules deny.
    let roles = arcs(&["author"]);
    world.config.acl.push(RuleConfig {
        roles,
        ..rule("no authors", Effect::Deny)
    });
    assert_eq!(shown_by(&world), Some(WhyNot::Acl));
}

#[test]
fn a_credential_has_to_be_all_that_a_way_into_the_operation_demands() {
    let key = CredentialRef::Key(Digest([1; 32]));
    let user = CredentialRef::User(arc("ann"));
    let certificate = CredentialRef::Certificate(arc("spiffe://a/b"));
    let mut world = World::new();
    for (operation, credential, passes) in [
        (LIST, &key, true),
        (LIST, &user, false),
        (LIST, &certificate, false),
        // A token, or key and certificate together.
        (ADD, &key, false),
        (ADD, &certificate, false),
        (ADD, &user, false),
        (GET, &user, true),
        (HEALTH, &user, true),
        (BROKEN, &key, false),
        (ODD, &key, false),
    ] {
        world.operation = operation;
        let why = shown(&world, credential);
        assert_eq!(why.is_none(), passes, "{operation} {credential:?}");
        let known = matches!(why, None | Some(WhyNot::Undecidable | WhyNot::Scope(_)));
        assert!(known, "{why:?}");
    }
    // What a token may is nothing a key can say of itself.
    world.operation = ADD;
    world.claims = Some(token());
    assert_eq!(shown(&world, &key), Some(WhyNot::Scope(arc("books.write"))));
    // A rule that denies by roles refuses a token of which none was told.
    let staff = findings::issuer("staff");
    world.config.auth.issuers.insert(arc("staff"), staff);
    world.operation = ADD;
    world.claims = Some(Claims {
        roles: Vec::new(),
        ..token()
    });
    let login = login("https://staff.example.com");
    assert_eq!(shown(&world, &login), None);
    world.config.acl.push(RuleConfig {
        roles: arcs(&["author"]),
        ..rule("no authors", Effect::Deny)
    });
    assert_eq!(shown(&world, &login), Some(WhyNot::Undecidable));
}

#[test]
fn what_was_not_told_and_matters_lets_nobody_pass() {
    let mut world = World::new();
    assert_eq!(told(&world), None);
    world.client = None;
    assert_eq!(told(&world), None, "no rule looks at it");
    world.config.networks.deny = vec![network("10.0.0.0/8")];
    assert_eq!(told(&world), Some(WhyNot::Network));
    let when = Some(arc("query.a == '1'"));
    for effect in [Effect::Deny, Effect::Allow] {
        let when = when.clone();
        let world = World::with_rule(RuleConfig {
            when,
            ..rule("conditional", effect)
        });
        assert_eq!(told(&world), Some(WhyNot::Undecidable));
    }
    let mut world = World::new();
    world.operation = usize::MAX;
    assert_eq!(told(&world), Some(WhyNot::Undecidable));
}

#[test]
fn where_an_authoriser_has_a_say_nobody_passes_without() {
    let mut world = World::new();
    let mut authoriser = AuthoriserConfig {
        transport: AuthoriserTransport::Grpc,
        url: arc("h2c://127.0.0.1:1"),
        ca: None,
        deadline: Duration::from_millis(200),
        failure: FailureMode::FailOpen,
        cache: Duration::ZERO,
        stale_ok: Duration::ZERO,
        vary: Vec::new(),
        headers: Vec::new(),
        shadow: false,
        place: place(3),
    };
    world.config.authoriser = Some(authoriser.clone());
    assert_eq!(told(&world), Some(WhyNot::Undecidable));
    authoriser.shadow = true;
    world.config.authoriser = Some(authoriser);
    assert_eq!(told(&world), None);
}
