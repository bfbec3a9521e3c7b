#!/bin/sh
# SPDX-License-Identifier: MIT
#
# scripts/setup.sh on machines that it has never seen, made of a few false programs: it asks for
# nothing when nothing is missing, installs what is, renews stale lists once, and says what to do
# where it may not.
. "$SOURCE_ROOT/tests/tap.sh"

bin=$tmp/bin
mkdir "$bin"
for tool in sh sed cat rm mktemp tail env echo; do
	ln -s "$(command -v $tool)" "$bin/$tool"
done

program() { # NAME, its text on standard input
	{
		echo '#!/bin/sh'
		cat
	} >"$bin/$1"
	chmod +x "$bin/$1"
}

setup() {
	: >"$tmp/calls"
	run env -i PATH="$bin" CALLS="$tmp/calls" "$(command -v sh)" \
		"$SOURCE_ROOT/scripts/setup.sh" "$@"
	calls=$(cat "$tmp/calls")
}

everything=$("$SOURCE_ROOT/scripts/setup.sh" --list build test lint fuzz)
contains " $everything " " meson " "build needs meson"
contains " $everything " " python3-pytest " "test needs pytest"
contains " $everything " " clang-tidy " "lint needs clang-tidy"
lacks " $(sh "$SOURCE_ROOT/scripts/setup.sh" --list build) " " cppcheck " "build needs no cppcheck"

program id <<'END'
echo 0
END
program apt-get <<'END'
echo "apt-get $*" >>"$CALLS"
END

# As dpkg-query does: a line for each package that it knows, status 1 if there are others.
program dpkg-query <<'END'
shift 2
for package in "$@"; do echo "installed $package"; done
END
setup test lint
is "$status: $out$err$calls" "0: " "nothing is missing: nothing is done or said"

program dpkg-query <<'END'
shift 2
for package in "$@"; do
	case $package in
	meson) ;;                                   # never heard of
	scdoc) echo "not-installed scdoc" ;;        # removed
	pkg-config) echo "config-files pkg-config" ;;
	*) echo "installed $package" ;;
	esac
done
exit 1
END
setup build
is "$status" 0 "what is missing is installed"
contains "$calls" "--no-install-recommends" "without recommendations"
contains "$calls" "install meson pkg-config scdoc" "and it alone"
is "$(grep -c . "$tmp/calls")" 1 "without a look at the network before"

program apt-get <<'END'
echo "apt-get $*" >>"$CALLS"
case "$*" in
*update) : >"$CALLS.updated" ;;
*) [ -f "$CALLS.updated" ] ;;
esac
END
setup build
is "$status" 0 "stale lists are renewed"
is "$(grep -c . "$tmp/calls")" 3 "install, update, install"

program apt-get <<'END'
echo "E: no network"
exit 100
END
setup build
is "$status" 1 "no network: exit status"
contains "$err" "E: no network" "no network: what apt-get said"
contains "$err" "could not install: meson pkg-config scdoc" "no network: the packages"

program id <<'END'
echo 1000
END
setup build
is "$status" 1 "neither root nor sudo: exit status"
contains "$err" "apt-get install --no-install-recommends meson pkg-config scdoc" \
	"neither root nor sudo: the command"
program sudo <<'END'
[ "$1" = -n ] && shift
echo "sudo $*" >>"$CALLS"
END
setup build
is "$status" 0 "with sudo"
contains "$calls" "sudo env DEBIAN_FRONTEND=noninteractive apt-get" "it goes through sudo"

rm "$bin/dpkg-query"
setup build
is "$status: $calls" "0: " "another distribution: nothing is done"
setup surprise
is "$status" 2 "an unknown profile is wrong usage"

done_testing
