# Every entry point of the project. `make help` lists them.
CARGO ?= cargo
WEIR_UP_FLAGS ?=
BENCH_FLAGS ?=
WEIR_DEMO_FLAGS ?=

.PHONY: help
help: ## This list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

.PHONY: run
run: build ## Build, then show who this machine talks to (terminal, and http://127.0.0.1:7780)
	exec target/release/weir up $(WEIR_UP_FLAGS)

.PHONY: demo
demo: ## A three-node cluster in network namespaces, a shop that talks in it, and the page (as root)
	@scripts/packages.sh build demo
	@$(MAKE) --no-print-directory ui/dist/index.html
	$(CARGO) build --release --locked --bins -p weir-tracer -p weir-agent -p weir-cli -p weir-testkit
	exec target/release/weir-demo $(WEIR_DEMO_FLAGS)

TOUR_FLAGS ?= --out docs/tour.md --screenshots ui/e2e/picture.mjs --pictures docs/images
.PHONY: tour
tour: test-packages ## The demo with every fault, one after the other, held against what weir says; writes docs/tour.md (as root, 25 minutes)
	@$(MAKE) --no-print-directory ui/dist/index.html
	$(CARGO) build --release --locked --bins -p weir-tracer -p weir-agent -p weir-cli -p weir-testkit
	target/release/weir-tour $(TOUR_FLAGS)

.PHONY: packages
packages: ## Install the packages that building needs and this machine lacks
	@scripts/packages.sh build

.PHONY: test-packages
test-packages: ## The same, and what the tests need beyond
	@scripts/packages.sh build test demo
	@scripts/kubectl.sh

ui/node_modules/.package-lock.json: ui/package.json ui/package-lock.json
	cd ui && npm ci --no-audit --no-fund
	@touch $@

ui/dist/index.html: ui/node_modules/.package-lock.json ui/index.html $(wildcard ui/vite.config.* ui/public/*) $(shell find ui/src -type f 2>/dev/null)
	cd ui && npm run build

.PHONY: ui
ui: packages ui/dist/index.html ## Build the page that the server embeds

# The page and the binaries are made one after the other: the server embeds the page.
.PHONY: build
build: packages ## Build the three binaries (release) into target/release
	@$(MAKE) --no-print-directory ui/dist/index.html
	$(CARGO) build --release --locked --bins -p weir-tracer -p weir-agent -p weir-cli

.PHONY: test
test: test-packages ## Every test: lints, unit tests, real eBPF end to end (as root), the page in Chromium
	@$(MAKE) --no-print-directory ui/dist/index.html
	@scripts/test.sh

.PHONY: lint
lint: ## Formatting, clippy, documentation
	@scripts/lint.sh

.PHONY: history-check
history-check: ## The snippets of docs/history.md with DuckDB, pandas and ClickHouse's engine (downloads them once)
	@scripts/history-check.sh

.PHONY: api-check
api-check: ## A server against its own /openapi.json, with schemathesis (downloads it once; two minutes)
	@scripts/api-check.sh

.PHONY: bench
bench: build ## Benchmarks; prints the figures that bench/README.md keeps
	@scripts/bench.sh

.PHONY: bench-overhead
bench-overhead: build test-packages ## What weir costs others' traffic (root, an idle machine, 20 minutes; BENCH_FLAGS=--quick: 2)
	$(CARGO) build --release --locked --bins -p weir-testkit
	@scripts/bench-overhead.sh $(BENCH_FLAGS)

.PHONY: accuracy
accuracy: test-packages ## Every kind of traffic on every path against its truth, as root; writes docs/accuracy.md
	@$(MAKE) --no-print-directory ui/dist/index.html
	@scripts/accuracy.sh

TORTURE_FLAGS ?= --out docs/torture.md
.PHONY: torture
torture: test-packages ## 200 random runs of kills, faults and time against real agents and a server; writes docs/torture.md (40 minutes; TORTURE_FLAGS='--seed N': one again, '--state etcd|etcd-members|configmap': all with that)
	@$(MAKE) --no-print-directory ui/dist/index.html
	$(CARGO) build --locked --bins -p weir-cli -p weir-agent -p weir-tracer -p weir-testkit
	nice target/debug/weir-torture $(TORTURE_FLAGS)

.PHONY: bench-footprint
bench-footprint: build test-packages ## What tracer and agent use: at rest, at 2,000 and 10,000 connects/s, with 200,000 rows (root, 5 minutes; BENCH_FLAGS=--quick: 2)
	$(CARGO) build --release --locked --bins -p weir-testkit
	@scripts/bench-footprint.sh $(BENCH_FLAGS)

.PHONY: bench-store
bench-store: build test-packages ## A server's ingest, history and largest edges beside SQLite, DuckDB, ClickHouse, etcd and ConfigMaps (20 minutes, 10 GB; BENCH_FLAGS=--quick: 2)
	$(CARGO) build --release --locked --bins -p weir-testkit
	$(CARGO) build --release --locked -p weir-store --example bench-history
	@scripts/bench-store.sh store $(BENCH_FLAGS)

.PHONY: bench-growth
bench-growth: build test-packages ## 10 to 5,000 agents against one server: processor, memory, latency, totals (6 minutes; BENCH_FLAGS=--quick: 1)
	$(CARGO) build --release --locked --bins -p weir-testkit
	@scripts/bench-store.sh growth $(BENCH_FLAGS)

.PHONY: bench-api
bench-api: build ## 50 readers at the same time of a server with 20 million rows of history and 10,000 edges (10 minutes, 1 GB; BENCH_FLAGS=--quick: 1)
	$(CARGO) build --release --locked --bins -p weir-testkit
	$(CARGO) build --release --locked -p weir-store --example bench-history
	@scripts/bench-store.sh api $(BENCH_FLAGS)

.PHONY: image
image: packages ## The image for Kubernetes (IMAGE=REGISTRY/weir:TAG), built by the Docker engine that answers
	@scripts/packages.sh image
	@$(MAKE) --no-print-directory ui/dist/index.html
	@scripts/image.sh

.PHONY: image-check
image-check: packages ## The same with a Docker engine of its own, then what is promised of it (root)
	@scripts/packages.sh image
	@$(MAKE) --no-print-directory ui/dist/index.html
	@scripts/image.sh --check

FUZZ_SECONDS ?= 120
.PHONY: fuzz
fuzz: ## Every fuzz target for FUZZ_SECONDS (120), one core (needs a nightly toolchain and cargo-fuzz)
	@scripts/fuzz.sh $(FUZZ_SECONDS)

.PHONY: deny
deny: ## Licences, sources and doubles of what we depend on (needs cargo-deny)
	$(CARGO) deny check bans licenses sources

.PHONY: clean
clean: ## Remove what was built
	$(CARGO) clean
	rm -rf ui/dist ui/node_modules
