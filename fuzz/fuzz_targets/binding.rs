//! Any call against a service with every kind of HTTP rule: no panic, and a message that can be written as JSON again, but for masks.
//!
//! Input: `METHOD target` on the first line, a body behind it.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use tollgate_gateway::transcode::face::{Body, Described, Template, describe_now};
use tollgate_gateway::transcode::{Profile, write_json};
use tollgate_policy::classify::Classifier;
use tollgate_policy::settings::read_api;

static SERVED: LazyLock<(Classifier, Described)> = LazyLock::new(|| {
    let file = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../config/grpc/apis/bookstore.yaml"
    );
    let config = read_api(file.as_ref(), &|_| None).expect("the example is right");
    let described = describe_now(&config).expect("the example is right");
    (Classifier::compile(&described.description).0, described)
});

fuzz_target!(|input: &str| {
    let (call, body) = input.split_once('\n').unwrap_or((input, ""));
    let (method, target) = call.split_once(' ').unwrap_or(("GET", call));
    if let Ok(template) = Template::parse(target) {
        let _ = (template.routes(), template.spelled_out());
    }
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let (classifier, described) = &*SERVED;
    let (Ok(matched), Some(face)) = (classifier.classify(method, path), &described.face) else {
        return;
    };
    let method = face
        .method(matched.operation)
        .expect("every operation is a method");
    let Some(binding) = method.binding(matched.route) else {
        return;
    };
    let body = Body {
        content_type: None,
        bytes: body.as_bytes(),
    };
    if let Ok(wire) = binding.request(&face.schema, &method.reading, path, query, body) {
        let mut json = Vec::new();
        let profile = Profile::default();
        let printed = write_json(&face.schema, method.input, &profile, &wire, &mut json);
        if let Err(error) = printed {
            // A parameter may spell a mask as the definition does; of `line_2` JSON knows no form.
            let of_mask = error.path.ends_with("mask") && query.contains('_');
            assert!(of_mask, "what was written is read: {error:?}");
        }
    }
});
