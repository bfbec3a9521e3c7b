#!/bin/sh
# SPDX-License-Identifier: MIT
#
# test-kernels.sh BUILD-DIR LIST [KERNEL...]
#
# Runs the tests that LIST names under other kernels: the oldest that is supported and the newest of
# Debian's backports, in QEMU with software emulation, so that what the library does where a feature
# is missing is run, not believed. Each kernel's results end in "N passed, N failed, N skipped"; the
# status is 1 where one of them failed, or was not reached in time.
#
# Kernels come from Debian's mirrors by apt-get, with lists and settings of its own under build/:
# the machine's stay what they are. Where no mirror answers and nothing was downloaded before, this
# skips, with the reason. Stopped for minutes on a machine that is busy, a guest finds its clock ahead
# and its tests out of time: then more of KERNELS_SCALE helps, or less to do meanwhile. KERNEL is a suite (bookworm, bookworm-backports) or a package's file.
#
#   KERNELS_DIR      what is downloaded (build/kernels)
#   KERNELS_MIRROR   (http://deb.debian.org/debian)
#   KERNELS_SCALE    a test may take so many times as long as on a real machine (10)
#   KERNELS_SECONDS  a kernel may take so long for everything (1500)
#   KERNELS_ACCEL    kvm where it is to be had is faster (tcg,thread=multi)
#   KERNELS_MEMORY   of the guest (1536M)
set -eu

[ $# -ge 2 ] || { echo "usage: test-kernels.sh BUILD-DIR LIST [KERNEL...]" >&2; exit 2; }
build=$1
list=$2
shift 2
here=$(cd "$(dirname "$0")" && pwd)
root=$(dirname "$here")
cache=${KERNELS_DIR:-$root/build/kernels}
mirror=${KERNELS_MIRROR:-http://deb.debian.org/debian}
scale=${KERNELS_SCALE:-10}
seconds=${KERNELS_SECONDS:-1500}
accel=${KERNELS_ACCEL:-tcg,thread=multi}
memory=${KERNELS_MEMORY:-1536M}
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
flavour=cloud-amd64
modules="virtio_pci virtio_blk ext4 loop zram overlay"

skip() {
	echo "test-kernels: skipped: $1"
	echo "0 passed, 0 failed, 1 skipped"
	exit 0
}

[ "$(dpkg --print-architecture 2>/dev/null)" = amd64 ] || skip "needs an amd64 Debian"
for tool in qemu-system-x86_64 cpio mke2fs depmod modprobe; do
	PATH=$PATH:/usr/sbin:/sbin command -v $tool >/dev/null || skip "$tool is not installed"
done
PATH=$PATH:/usr/sbin:/sbin
mkdir -p "$cache"
cache=$(cd "$cache" && pwd)
build=$(cd "$build" && pwd)
work=$(mktemp -d "$cache/run-XXXXXX")
guest=
trap '[ -z "$guest" ] || kill "$guest" 2>/dev/null; rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

# --- packages ---

private_apt() { # PROGRAM ARGUMENTS...: with lists of its own
	program=$1
	shift
	"$program" -q -o Dir::Etc::sourcelist="$cache/apt/sources.list" -o Dir::Etc::sourceparts=- \
		-o Dir::Etc::preferences=- -o Dir::Etc::preferencesparts=- \
		-o Dir::State::lists="$cache/apt/lists" -o Dir::Cache="$cache/apt/cache" \
		-o APT::Sandbox::User=root -o Acquire::Retries=2 -o Acquire::http::Timeout=20 "$@"
}

# Once a day; an older list will do where the mirror is silent.
update_lists() {
	mkdir -p "$cache/apt/lists/partial" "$cache/apt/cache/archives/partial"
	[ -r $keyring ] || return 1
	for suite in bookworm bookworm-backports; do
		echo "deb [signed-by=$keyring arch=amd64] $mirror $suite main"
	done >"$cache/apt/sources.list"
	[ -z "$(find "$cache/apt/updated" -mmin -1440 2>/dev/null)" ] || return 0
	if timeout 180 apt-get --version >/dev/null && private_apt apt-get update >"$work/apt" 2>&1 &&
		! grep -q '^[EW]: Failed to fetch' "$work/apt"; then
		touch "$cache/apt/updated"
	else
		sed 's/^/test-kernels: apt-get: /' "$work/apt" | tail -n 3 >&2
		return 1
	fi
}

# The package that the suite's newest meta package stands for.
kernel_of() { # SUITE
	meta=linux-image-$flavour
	version=$(private_apt apt-cache madison $meta | awk -F'|' -v suite="$1/main" '
		index($3, " " suite " ") { gsub(/ /, "", $2); print $2; exit }')
	[ -n "$version" ] || return 1
	private_apt apt-cache show "$meta=$version" |
		sed -n 's/^Depends: \(linux-image-[^ ,]*\).*/\1/p' | head -n 1
}

# A package's file, downloaded unless it is there; what was downloaded last under that label where
# the mirror is silent.
package_file() { # PACKAGE LABEL
	if [ -n "$1" ]; then
		name=$(cd "$cache" && ls "$1"_*.deb 2>/dev/null | tail -n 1)
		if [ -z "$name" ] && (cd "$work" && private_apt apt-get download "$1" >apt 2>&1); then
			mv "$work/$1"_*.deb "$cache/"
			name=$(cd "$cache" && ls "$1"_*.deb | tail -n 1)
		fi
		[ -z "$name" ] || echo "$name" >"$cache/newest-$2"
	fi
	[ -f "$cache/newest-$2" ] && echo "$cache/$(cat "$cache/newest-$2")"
}

# Not installed: it would take the place of a busybox that the machine uses.
find_busybox() {
	busybox=$work/busybox/bin/busybox
	file=$(package_file busybox-static busybox) || return 1
	dpkg-deb -x "$file" "$work/busybox"
}

# --- what is booted ---

# Modules in the order in which they have to be loaded, as NN-name.ko, and /init.
make_memory_disk() { # TREE VERSION
	disk=$work/memory
	rm -rf "$disk"
	mkdir -p "$disk/bin" "$disk/modules"
	cp "$busybox" "$disk/bin/busybox"
	cp "$here/kernel-guest.sh" "$disk/init"
	chmod 755 "$disk/init"
	depmod -b "$1" "$2"
	number=10
	for module in $modules; do
		modprobe -d "$1" -S "$2" --show-depends "$module" 2>/dev/null
	done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }' | while read -r file; do
		name=$number-${file##*/}
		case $file in
		*.xz) xz -dc "$file" >"$disk/modules/${name%.xz}" ;;
		*.zst) zstd -qdc "$file" >"$disk/modules/${name%.zst}" ;;
		*) cp "$file" "$disk/modules/$name" ;;
		esac
		number=$((number + 1))
	done
	(cd "$disk" && find . | cpio --quiet -o -H newc -R 0:0) >"$work/initrd"
}

# The tests and all they need, under the paths that they have here.
make_disk() {
	stage=$work/stage
	mkdir -p "$stage/bin" "$stage/etc" "$stage/proc" "$stage/sys" "$stage/dev"
	/usr/bin/python3 "$here/kernel-plan.py" plan "$build" "$list" "$stage" "$scale" || return 1
	cp "$busybox" "$stage/bin/busybox"
	cp "$here/kernel-guest.sh" "$stage/init"
	mkdir -p "$stage/bin" "$stage/usr/local/bin" # mkfs.ext4: for a test of a full disk
	ln -s "$(command -v mke2fs)" "$stage/usr/local/bin/mkfs.ext4"
	chmod 755 "$stage/init"
	cat >"$stage/plan/probe" <<-PROBE
		"$build/cli/cow" probe --json
		"$build/cli/cow" probe
	PROBE
	echo 'root:x:0:0:root:/root:/bin/sh
nobody:x:65534:65534:nobody:/nonexistent:/bin/false' >"$stage/etc/passwd"
	echo 'root:x:0:
nogroup:x:65534:' >"$stage/etc/group"
	mke2fs -q -F -t ext4 -E root_owner=0:0 -d "$stage" "$work/disk" 2048M
}

# Says how each test ended as the guest reports it, until the guest is gone.
follow() { # RESULTS PID SKIPPED
	total=$(wc -l <"$work/stage/plan/list")
	shown=0
	while :; do
		alive=yes
		kill -0 "$2" 2>/dev/null || alive=no
		ended=$(grep -c '^@end ' "$1" 2>/dev/null) || true
		if [ "${ended:-0}" -gt $shown ]; then
			tr -d '\r' <"$1" | awk -v skip=$shown -v total="$total" -v before="$3" '/^@end / && ++n > skip {
				sub(/^[0-9]+-/, "", $2)
				printf "%4d/%d %-32s %s%4d s\n", before + n, total, $2,
					$3 == 0 ? "ok    " : "FAILED", $4 }'
			shown=$ended
		fi
		[ $alive = yes ] || return 0
		sleep 1
	done
}

# Without cmpxchg16b, whose emulation in QEMU 7.2 spoils the flags now and then, and without the
# fifth level of page tables, which only takes time.
boot() { # KERNEL-IMAGE RESULTS CONSOLE SKIPPED
	rm -f "$2" "$3"
	timeout -k 10 "$seconds" qemu-system-x86_64 -accel "$accel" -cpu max,-cx16,-la57 -smp 2 \
		-m "$memory" \
		-nodefaults -no-user-config -display none -no-reboot -kernel "$1" -initrd "$work/initrd" \
		-append "console=ttyS0 panic=-1 quiet loglevel=4 mitigations=off random.trust_cpu=on \
			tsc=reliable cow.skip=$4" \
		-drive "file=$work/disk,format=raw,if=virtio,snapshot=on" \
		-chardev "file,id=console,path=$3" -serial chardev:console \
		-chardev "file,id=results,path=$2" -serial chardev:results </dev/null &
	guest=$!
	follow "$2" $guest "$4"
	status=0
	wait $guest || status=$?
	guest=
}

# Where the guest dies under a test, that test has failed, and another one goes on after it.
boot_until_done() { # KERNEL-IMAGE LOG
	: >"$2.results"
	: >"$2.console"
	began=$(date +%s)
	limit=$seconds
	for try in 1 2 3 4; do
		skipped=$(grep -c '^@start ' "$2.results") || true
		boot "$1" "$work/results" "$work/console" "$skipped"
		cat "$work/results" >>"$2.results"
		cat "$work/console" >>"$2.console"
		if [ "$status" = 124 ]; then
			echo "test-kernels: out of time after $limit s (KERNELS_SECONDS)"
			break
		fi
		if grep -q '^@done' "$work/results"; then
			seconds=$limit
			return
		fi
		grep -q '^@start' "$work/results" || break
		echo "test-kernels: the guest died; its console ends in:"
		tail -n 15 "$work/console" | sed 's/^/  /'
		seconds=$((limit - $(date +%s) + began))
		[ $seconds -gt 0 ] || break
	done
	seconds=$limit
	status=1
}

run_kernel() { # PACKAGE-FILE
	name=$(basename "$1" | sed 's/_.*//; s/^linux-image-//')
	tree=$work/tree
	rm -rf "$tree"
	mkdir -p "$tree" "$build/meson-logs"
	dpkg-deb -x "$1" "$tree"
	version=$(ls "$tree/lib/modules")
	log=$build/meson-logs/kernel-$name
	rm -f "$log".*
	echo
	echo "== $name ($accel)"
	make_memory_disk "$tree" "$version"
	boot_until_done "$tree/boot/vmlinuz-$version" "$log"
	sed -n 's/\r$//; s/^@probe //p' "$log.results" | sed '/^{/,/^}/d'
	sed -n 's/\r$//; s/^@probe //p' "$log.results" | sed -n '/^{/,/^}/p' >"$log.probe.json"
	grep -q '^@done' "$log.results" || echo "test-kernels: no guest got to the end: $log.console"
	/usr/bin/python3 "$here/kernel-plan.py" collect "$build" "$work/stage" "$log.results" \
		"$log.json"
	/usr/bin/python3 "$here/summarize-tests.py" "$log.json" - "$status" "$log.summary"
}

if [ $# -eq 0 ]; then
	set -- bookworm bookworm-backports
fi
update_lists || echo "test-kernels: no mirror answers; trying what was downloaded before"
files=
for kernel in "$@"; do
	case $kernel in
	*.deb)
		[ -f "$kernel" ] || { echo "test-kernels: $kernel: no such file" >&2; exit 2; }
		files="$files $kernel"
		;;
	*)
		file=$(package_file "$(kernel_of "$kernel" || true)" "$kernel") ||
			skip "no kernel of $kernel: $mirror does not answer, and none is in $cache"
		files="$files $file"
		;;
	esac
done
find_busybox || skip "no busybox-static: $mirror does not answer, and none is in $cache"

make_disk || exit 1
result=0
for file in $files; do
	run_kernel "$file" || result=1
done
exit $result
