# SPDX-License-Identifier: GPL-2.0-or-later
# The front door: one word for everything. The building itself is Meson's (meson.build).
#
#   make             build/tabique
#   make run         a Debian on this terminal, its image built on first use (SUITE, MEMORY, CPUS, ENGINE, APPEND)
#   make check       every test; with SANITIZE=address,undefined in a build of its own under these sanitizers
#   make fuzz        every fuzz target for FUZZ_SECONDS each (600); TARGET=name for one
#   make soak        Debian's kernels booted BOOTS times each (50); guests started and killed 200 times
#   make bench       side by side with peers
#   make bench-soft  what guests compute and do on the soft engine, on QEMU's TCG and natively (RUNS of each: 5)
#   make bench-disk  disks converted and cloned beside qemu-img, served beside qemu-nbd (RUNS of each: 5)
#   make bench-containers  containers beside Debian's runc: how long they take, and what they need
#   make install     program, man page, completion, systemd units (PREFIX, DESTDIR)

BUILD := build
SANITIZE ?=
ifneq ($(SANITIZE),)
comma := ,
BUILD := build/san-$(subst $(comma),-,$(SANITIZE))
endif

PREFIX ?= /usr/local
DESTDIR ?=
SUITE ?= bookworm
MEMORY ?= 512M
CPUS ?= 2
ENGINE ?= auto
APPEND ?=
FUZZ_SECONDS ?= 600
TARGET ?=
BOOTS ?= 50
RUNS ?= 5
TESTS ?=

# One line that changes on a terminal, nothing elsewhere.
NINJA = if [ -t 1 ]; then ninja -C $(BUILD) $(1); else ninja -C $(BUILD) --quiet $(1); fi

all: build

build: $(BUILD)/build.ninja | deps
	@ninja -C $(BUILD) -n tabique | grep -q 'no work to do' || $(call NINJA,tabique)

# What tests need is asked for when the first test runs.
build-tests: $(BUILD)/with-tests | deps-test
	@ninja -C $(BUILD) -n | grep -q 'no work to do' || $(call NINJA,)

$(BUILD)/build.ninja: | deps
	@meson setup $(BUILD) -Dtests=false --prefix=$(PREFIX) \
	    $(if $(SANITIZE),-Db_sanitize=$(SANITIZE) -Db_lundef=false) >$(BUILD)-setup.log 2>&1 \
	    && rm $(BUILD)-setup.log || { cat $(BUILD)-setup.log; rm $(BUILD)-setup.log; exit 1; }

$(BUILD)/with-tests: $(BUILD)/build.ninja | deps-test
	@meson configure $(BUILD) -Dtests=true
	@touch $@

deps:
	@tools/install-deps --quiet build

deps-test:
	@tools/install-deps --quiet build test

guests: deps
	@tools/fetch-guest --quiet --suite bookworm --out build/guest/bookworm
	@tools/fetch-guest --quiet --suite trixie --out build/guest/trixie

# Images and guests of this tree's own, where nothing else is told.
run: export TABIQUE_HOME ?= $(CURDIR)/build/home
run: build
	@$(BUILD)/tabique image build debian --suite $(SUITE) --name debian-$(SUITE)
	@exec $(BUILD)/tabique run --rm --memory $(MEMORY) --cpus $(CPUS) --engine $(ENGINE) \
	    $(if $(APPEND),--append "$(APPEND)") debian-$(SUITE)

check: build-tests guests
	@tools/run-tests --build $(BUILD) $(TESTS)

soak: build-tests guests
	@tools/soak --boots $(BOOTS)
	@tools/soak-life

bench: build-tests guests
	@bench/run

bench-soft: build-tests guests
	@tools/install-deps --quiet bench
	@bench/soft --runs $(RUNS)

bench-disk: build guests
	@tools/install-deps --quiet test
	@bench/disk-clone
	@bench/disk-convert --runs $(RUNS)
	@bench/disk-serve --runs $(RUNS)

bench-containers: build-tests
	@tools/install-deps --quiet bench-containers
	@bench/containers --runs $(if $(filter command,$(origin RUNS)),$(RUNS),20)

fuzz:
	@tools/install-deps --quiet build fuzz
	@tools/run-fuzz --seconds $(FUZZ_SECONDS) $(TARGET)

install: $(BUILD)/build.ninja
	@meson configure $(BUILD) -Dprefix=$(PREFIX)
	@$(call NINJA,)
	@DESTDIR=$(DESTDIR) meson install -C $(BUILD) --no-rebuild --quiet
	@echo "installed tabique under $(DESTDIR)$(PREFIX)"

clean:
	rm -rf build

.PHONY: all build build-tests deps deps-test guests run check soak bench bench-soft bench-disk bench-containers fuzz install clean
