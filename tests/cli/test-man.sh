#!/bin/sh
# SPDX-License-Identifier: MIT
#
# The manual and the table of verbs agree: each verb has a page that names it and each of its
# options, cow(1) lists each verb, and no page speaks of options that do not exist.
. "$SOURCE_ROOT/tests/tap.sh"

man=$SOURCE_ROOT/man
"$COW" completion list >"$tmp/list"

# The options that a page lists as such: "*--name*" and "*-x*" at the start of a line.
page_options() {
	sed -n 's/^\*\(-.*\)$/\1/p' "$1" | grep -oE '(^|[ *,])--?[a-zA-Z][a-z-]*' | tr -d ' *,' | sort -u
}

for verb in $(awk 'NF == 1' "$tmp/list"); do
	page=$man/cow-$verb.1.scd
	contains "$(cat "$man/cow.1.scd")" "*cow-$verb*(1)" "cow(1) lists $verb"
	if [ ! -f "$page" ]; then
		fail "$verb has a page"
		continue
	fi
	contains "$(sed -n 1,10p "$page")" "cow-$verb - " "$verb: the page begins with its name"
	awk -v verb="$verb" 'NF == 2 && $1 == verb { print $2 }' "$tmp/list" | sort -u >"$tmp/table"
	page_options "$page" >"$tmp/page"
	is "$(comm -23 "$tmp/table" "$tmp/page" | tr '\n' ' ')" "" "$verb: no option lacks in the page"
	is "$(comm -13 "$tmp/table" "$tmp/page" | tr '\n' ' ')" "" "$verb: no option of the page is made up"
done

# Every member of the JSON stands in the page; what the kernel or the library names, does not.
cat >"$tmp/members.py" <<'END'
import json, re, subprocess, sys
command, page, *arguments = sys.argv[1:]
found = json.loads(subprocess.run([command, *arguments], stdout=subprocess.PIPE).stdout)
words = re.findall(r"[a-z0-9_]+", open(page).read().replace("\\", ""))
told = {word.strip("_") for word in words}

def members(value):
    if isinstance(value, list):
        for one in value:
            yield from members(one)
    elif isinstance(value, dict):
        for name, one in value.items():
            yield name
            if name not in ("system", "features", "traps"):
                yield from members(one)

print(*sorted(set(members(found)) - told))
END
members() { # VERB WORD...
	is "$("$PYTHON" "$tmp/members.py" "$COW" "$man/cow-$1.1.scd" "$@")" "" "$*: its members"
}
members ps --json
members stat --json - true
members stat -r 2 --json - true
members stat -I 10 --json - sleep 0.05
members doctor --caps --json --pid $$
members file --extents --json "$man/cow.1.scd"
members probe --json
members walk --json
members version --json
members bench --list --json -
members bench --tiny --json - rss fork-size

if command -v scdoc >/dev/null 2>&1; then
	for page in "$man"/*.scd; do
		ok "scdoc accepts ${page##*/}" sh -c "scdoc <'$page'"
	done
else
	skip "scdoc accepts the pages" "scdoc is not installed"
fi

done_testing
