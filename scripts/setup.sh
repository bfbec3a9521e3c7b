#!/bin/sh
# SPDX-License-Identifier: MIT
#
# Installs the Debian packages that a make goal needs and that are missing.
#
#   scripts/setup.sh PROFILE...     build, test, lint, fuzz, kernels
#   scripts/setup.sh --list PROFILE print the packages of a profile, install nothing
#
# Each profile includes `build`. When everything is there this costs one dpkg-query and touches
# neither the network nor the disk. Without root it goes through sudo when that needs no
# password; else it names the command and gives up with status 1. On systems without dpkg it
# does nothing: Meson reports what it misses.
set -eu

build="gcc libc6-dev libisal-dev libzstd-dev make meson ninja-build pkg-config binutils libsqlite3-dev sqlite3
	libjson-c-dev libjs-chart.js libxxhash-dev scdoc clang libbpf-dev bpftool"
# Servers that the command is tried on. They are started by the tests alone.
services="redis-server postgresql nginx-light"
# File systems that the command is tried on, in images of their own.
file_systems="btrfs-progs xfsprogs"
test="chromium g++ perl python3 python3-pytest qemu-utils redis-tools liburing-dev $services $file_systems"
fuzz="clang libclang-rt-14-dev"
# What boots other kernels, and takes their packages apart.
kernels="python3 qemu-system-x86 cpio kmod e2fsprogs procps xz-utils zstd"
lint="g++ clang clang-tidy clang-format cppcheck"

list_only=no
packages=$build
for profile in "$@"; do
	case $profile in
	--list) list_only=yes ;;
	build) ;;
	test) packages="$packages $test" ;;
	lint) packages="$packages $lint" ;;
	fuzz) packages="$packages $fuzz" ;;
	kernels) packages="$packages $kernels" ;;
	*)
		echo "setup.sh: unknown profile '$profile'; use build, test, lint, fuzz or kernels" >&2
		exit 2
		;;
	esac
done

if [ $list_only = yes ]; then
	echo $packages
	exit 0
fi

command -v dpkg-query >/dev/null 2>&1 || exit 0

# dpkg-query fails for names it does not know, but still prints the others.
installed=$(dpkg-query -W -f='${db:Status-Status} ${Package}\n' $packages 2>/dev/null |
	sed -n 's/^installed //p') || true
missing=
for package in $packages; do
	case "
$installed
" in
	*"
$package
"*) ;;
	*) missing="$missing $package" ;;
	esac
done
[ -n "$missing" ] || exit 0

apt="apt-get -y -q --no-install-recommends -o DPkg::Lock::Timeout=300"
if [ "$(id -u)" = 0 ]; then
	as_root="env DEBIAN_FRONTEND=noninteractive"
elif command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then
	as_root="sudo -n env DEBIAN_FRONTEND=noninteractive"
else
	echo "setup.sh: missing packages:$missing" >&2
	echo "setup.sh: install them as root, then run make again:" >&2
	echo "  apt-get update && apt-get install --no-install-recommends$missing" >&2
	exit 1
fi

echo "setup.sh: installing$missing"
log=$(mktemp)
policy=
trap 'rm -f "$log"; [ -z "$policy" ] || $as_root rm -f "$policy"' EXIT

# Debian starts a server when it is installed, unless this file says no.
new_services=
for package in $missing; do
	case " $services " in *" $package "*) new_services="$new_services $package" ;; esac
done
if [ -n "$new_services" ] && [ ! -e /usr/sbin/policy-rc.d ]; then
	policy=/usr/sbin/policy-rc.d
	$as_root sh -c 'printf "#!/bin/sh\nexit 101\n" >"$1" && chmod 755 "$1"' - "$policy"
fi

# The package lists may be absent or stale: they are renewed only when the first try fails.
if ! $as_root $apt install $missing >"$log" 2>&1; then
	if ! { $as_root $apt update && $as_root $apt install $missing; } >"$log" 2>&1; then
		tail -n 20 "$log" >&2
		echo "setup.sh: apt-get could not install:$missing" >&2
		exit 1
	fi
fi
# Nor at the next start of the machine.
if [ -n "$new_services" ] && [ -d /run/systemd/system ]; then
	for package in $new_services; do
		$as_root systemctl disable --quiet "${package%-light}" >/dev/null 2>&1 || true
	done
fi
