# One entry for everything people do with this repository; `make test` is what CI runs.
# CARGO_TARGET_DIR is respected everywhere.

CARGO ?= cargo
export CARGO_TARGET_DIR ?= $(CURDIR)/target
# Of what `bench` measures.
PROFILE ?= release

.PHONY: demo fleet-demo build test peers kill-test orders conformance lint bench fuzz audit setup

demo: setup ## the bookstore API in front of a service that echoes
	$(CARGO) build --release --locked -p tollgate
	TOLLGATE="$(CARGO_TARGET_DIR)/release/tollgate" sh scripts/demo.sh

fleet-demo: setup ## a control plane, two gateways, and three sidecars with their apps
	$(CARGO) build --release --locked -p tollgate
	TOLLGATE="$(CARGO_TARGET_DIR)/release/tollgate" sh scripts/fleet-demo.sh

build: setup ## the release binary
	$(CARGO) build --release --locked -p tollgate

test: setup lint peers ## everything
	$(CARGO) test --workspace --locked --no-fail-fast
	@# Of the whole workspace again: for one package alone cargo would build its dependencies anew, with fewer features.
	TOLLGATE_TEST_PUMP=1 $(CARGO) test --workspace --locked --no-fail-fast \
		--test forwarding --test faults --test streams --test classification --test security \
		--test strictness --test listeners --test descriptors --test live_configuration \
		--test keys --test plans --test terms --test revocation --test explain --test shadow --test audit

peers: ## other people's gRPC, for the tests that call it and are called by it (from PyPI and npm)
	@sh scripts/peers.sh || echo "peers: not installed; tests that need them are skipped, and fail in CI" >&2

kill-test: setup ## a thousand deaths of gateways and control planes under load: every answered call billed once
	TOLLGATE_KILLS=$${TOLLGATE_KILLS:-1000} $(CARGO) test --locked -p tollgate --test kill_usage -- --nocapture

orders: setup ## every order of the steps of threads that share a quota cell (loom)
	RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR="$(CARGO_TARGET_DIR)/loom" $(CARGO) test --locked --release -p tollgate-policy --test quota_orders

conformance: setup ## the official conformance suite of protobuf against the codec (fetches its runner with npm)
	sh scripts/conformance.sh

lint: setup ## format and clippy
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings

bench: setup ## beside nginx, HAProxy and bare pingora: benches/README.md; TABLE="cpu --rounds 9" for a part, PROFILE=dist for the published build
	$(CARGO) build --profile $(PROFILE) --locked -p tollgate --bins --examples
	TOLLGATE="$(CARGO_TARGET_DIR)/$(PROFILE)/tollgate" python3 benches/run.py $(TABLE)

fuzz: ## ten minutes per target (needs nightly and cargo-fuzz)
	sh scripts/fuzz.sh

audit: ## licences, sources and advisories of the dependencies (needs cargo-deny)
	sh scripts/audit.sh

setup: ## what the build needs: cmake and a C compiler
	@sh scripts/setup.sh
