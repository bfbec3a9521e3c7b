# SPDX-License-Identifier: MIT
#
# The front door: each goal sets up what it needs and works alone on a fresh Debian 12. Meson
# does the building; every goal has a build directory of its own under build/.
#
#   PREFIX, DESTDIR   make install
#   SETUP=no          install no packages
#   JOBS=N            as many compilers and tests at once
#   TESTS="a b"       only these test files (test, asan, tsan)
#   FUZZ_SECONDS=30   for each harness
#   BENCH="a b"       only these benchmarks; BENCH_ARGS for their options
#   KERNELS="a b"     only these (test-kernels): suites of Debian, or files of packages

MESON ?= meson
PREFIX ?= /usr/local
SETUP ?= yes
FUZZ_SECONDS ?= 30
TESTS ?=
BENCH ?=
BENCH_ARGS ?=
KERNELS ?=
DEMO_ARGS ?=
ninja_jobs = $(if $(JOBS),-j $(JOBS))
test_jobs = $(if $(JOBS),--num-processes $(JOBS))

# $(call setup,PROFILES): the packages of these profiles.
setup = @[ "$(SETUP)" = no ] || scripts/setup.sh $(1)
# $(call configure,DIR,OPTIONS): once; Meson notices by itself what changes later.
configure = @[ -f build/$(1)/build.ninja ] || $(MESON) setup build/$(1) $(2)
compile = ninja -C build/$(1) $(ninja_jobs)

dev = --native-file build-dev.ini
release = --prefix $(PREFIX) -Dtests=disabled -Dfuzz=disabled

export ASAN_OPTIONS ?= abort_on_error=1:detect_stack_use_after_return=1:strict_string_checks=1
export UBSAN_OPTIONS ?= halt_on_error=1:abort_on_error=1:print_stacktrace=1
export TSAN_OPTIONS ?= halt_on_error=1:second_deadlock_stack=1

.PHONY: build
build:
	$(call setup,build)
	$(call configure,release,$(release))
	$(call compile,release)

.PHONY: run
run: build
	build/release/cli/cow demo $(DEMO_ARGS)

.PHONY: test
test:
	$(call setup,test)
	$(call configure,test,$(dev))
	$(call compile,test)
	@scripts/run-tests.sh build/test tests/required \
		--no-suite long $(test_jobs) $(TESTS)

.PHONY: test-all
test-all:
	$(call setup,test)
	$(call configure,test,$(dev))
	$(call compile,test)
	@scripts/run-tests.sh build/test tests/required $(test_jobs) $(TESTS)

# Not part of test-all: it takes its kernels from Debian's mirrors, and minutes of emulation.
.PHONY: test-kernels
test-kernels:
	$(call setup,test kernels)
	$(call configure,test,$(dev))
	$(call compile,test)
	@scripts/test-kernels.sh build/test tests/kernels $(KERNELS)

.PHONY: bench
bench:
	$(call setup,build)
	$(call configure,release,$(release))
	$(call compile,release)
	@scripts/run-bench.sh build/release "$(BENCH)" $(BENCH_ARGS)

.PHONY: lint
lint:
	$(call setup,test lint)
	$(call configure,lint,$(dev))
	@ninja -C build/lint build.ninja >/dev/null
	@scripts/lint.sh build/lint

.PHONY: format
format:
	$(call setup,lint)
	clang-format -i $$(git ls-files '*.c' '*.h')

.PHONY: asan
asan:
	$(call setup,test)
	$(call configure,asan,$(dev) -Db_sanitize=address$(,)undefined -Db_lundef=false)
	$(call compile,asan)
	@scripts/run-tests.sh build/asan - --no-suite long --no-suite install \
		$(test_jobs) $(TESTS)

# ThreadSanitizer knows the address space of kernels that randomise 28 bits of it; where there
# are more, its programs end at once, so randomisation is switched off for them (where a
# container does not forbid that).
.PHONY: tsan
tsan:
	$(call setup,test)
	$(call configure,tsan,$(dev) -Db_sanitize=thread -Db_lundef=false)
	$(call compile,tsan)
	@$$(setarch -R true 2>/dev/null && echo setarch -R) scripts/run-tests.sh build/tsan - --suite threads \
		$(test_jobs) $(TESTS)

.PHONY: fuzz
fuzz:
	$(call setup,fuzz)
	@[ -f build/fuzz/build.ninja ] || CC=clang $(MESON) setup build/fuzz $(dev) \
		-Dlibfuzzer=true -Db_sanitize=address,undefined -Db_lundef=false \
		-Dcli=disabled -Dman=disabled -Dcompletions=disabled -Dbench=disabled \
		-Dtests=disabled -Dsqlite=disabled
	$(call compile,fuzz)
	@scripts/run-fuzz.sh build/fuzz $(FUZZ_SECONDS)

.PHONY: install
install: build
	@$(MESON) configure build/release --prefix $(PREFIX)
	$(if $(DESTDIR),DESTDIR="$(DESTDIR)") $(MESON) install -C build/release
	@[ -n "$(DESTDIR)" ] || ldconfig 2>/dev/null || true

.PHONY: uninstall
uninstall:
	ninja -C build/release uninstall

.PHONY: clean
clean:
	rm -rf build

.PHONY: help
help:
	@echo 'make            build the library, the command and the extensions (build/release)'
	@echo 'make run        build, then show snapshots of a live database beside fork(): cow demo'
	@echo 'make test       build with warnings as errors, run the tests'
	@echo 'make test-all   the long tests too'
	@echo 'make test-kernels  the tests of traps and counters under the oldest supported kernel and'
	@echo '                a newer one, in an emulator'
	@echo 'make bench      measure'
	@echo 'make lint       static analysis, format, layering'
	@echo 'make format     apply .clang-format to the files under version control'
	@echo 'make asan       the tests under AddressSanitizer and UndefinedBehaviorSanitizer'
	@echo 'make tsan       the tests with threads under ThreadSanitizer'
	@echo 'make fuzz       every fuzz harness for FUZZ_SECONDS=$(FUZZ_SECONDS)'
	@echo 'make install    install to PREFIX=$(PREFIX), under DESTDIR when set'
	@echo 'make uninstall  remove what the last make install put there'
	@echo 'make clean      remove build/'
	@echo
	@echo 'variables: PREFIX DESTDIR SETUP=no JOBS=N TESTS="names" BENCH="names" BENCH_ARGS DEMO_ARGS'
	@echo '           KERNELS="suites or files"'

# A comma in an argument of $(call).
, := ,
