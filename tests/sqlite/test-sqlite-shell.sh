#!/bin/sh
# SPDX-License-Identifier: MIT
#
# The sqlite3 shell loads the extension as the documentation shows it.

. "$SOURCE_ROOT/tests/tap.sh"

# A library with AddressSanitizer in it wants the sanitizer loaded first.
[ -z "${COW_SQLITE_PRELOAD:-}" ] || export LD_PRELOAD="$COW_SQLITE_PRELOAD"

command -v sqlite3 >/dev/null || skip_all "there is no sqlite3 shell"
db=$tmp/shop.db
sqlite3 "$db" "CREATE TABLE item(name, price); INSERT INTO item VALUES('tea', 3), ('milk', 2)"
before=$(cksum <"$db")
extension=${COW_SQLITE%.so}

run sqlite3 -cmd ".load $extension" :memory: "SELECT cow_version()"
is "$status" 0 "the extension loads, named without its suffix"
is "$out" "$VERSION" "cow_version() is the library's"

run sqlite3 -cmd ".load $extension" -cmd ".open file:$db?vfs=cow" :memory: "
	SELECT cow_snapshot('noon');
	UPDATE item SET price = price * 2;
	ATTACH 'file:$db?vfs=cow&snapshot=noon' AS past;
	SELECT item.name, past.item.price, main.item.price FROM main.item JOIN past.item USING(name)
		ORDER BY 1;
	DETACH past;
	SELECT cow_rollback('noon');
	SELECT name, price FROM item ORDER BY 1;
	SELECT name, shared_bytes >= 0, private_bytes >= 0 FROM cow_snapshots;
	SELECT cow_export('noon', '$tmp/noon.db') > 0;
	PRAGMA journal_mode;"
is "$status" 0 "a session of snapshots"
is "$err" "" "says nothing on standard error"
is "$out" "noon
milk|2|4
tea|3|6
noon
milk|2
tea|3
noon|1|1
1
memory" "and answers as documented"
is "$(sqlite3 "$tmp/noon.db" 'PRAGMA integrity_check')" ok "the stock shell reads what was exported"
is "$(sqlite3 "$tmp/noon.db" .dump)" "$(sqlite3 "$db" .dump)" "with the same contents"
is "$(cksum <"$db")" "$before" "the real file was not written"

run sqlite3 -cmd ".load $extension" :memory: "SELECT cow_snapshot('x')"
contains "$err" "open it as file:PATH?vfs=cow" "a database that is not cow says how to be"

run sqlite3 -cmd ".load $extension" -cmd ".log stderr" -cmd ".open file:$db?vfs=cow" :memory: \
	"ATTACH 'file:$db?vfs=cow&snapshot=nope' AS past"
contains "$err" "no snapshot named 'nope'" "the log says which name was not found"
contains "$err" "cow_snapshots lists them" "and where to look"

done_testing
