//! Any text as an admission: refused, or it is the one form of what it says, and is believed of its issuer alone.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tollgate_policy::admission::{Admission, BadAdmission, Replays};
use tollgate_policy::workload::WorkloadId;

fuzz_target!(|value: &[u8]| {
    let Ok(admission) = Admission::decode(value) else {
        return;
    };
    assert_eq!(
        admission.encode().map(String::into_bytes),
        Ok(value.to_vec())
    );
    let (now, api) = (admission.issued, &*admission.audience);
    let other: WorkloadId = "spiffe://fuzz.test/service/nobody"
        .parse()
        .expect("an identity");
    if other != admission.issuer {
        let checked = admission.check(&other, |_| true, api, now);
        assert_eq!(checked, Err(BadAdmission::Foreign));
    }
    let checked = admission.check(&admission.issuer, |_| false, api, now);
    assert_eq!(checked, Err(BadAdmission::Foreign));
    if admission
        .check(&admission.issuer, |_| true, api, now)
        .is_ok()
    {
        let mut replays = Replays::default();
        assert_eq!(replays.first_use(&admission, now), Ok(()));
        assert_eq!(
            replays.first_use(&admission, now),
            Err(BadAdmission::Replayed)
        );
    }
});
