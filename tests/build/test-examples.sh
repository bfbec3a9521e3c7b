#!/bin/sh
# SPDX-License-Identifier: MIT
#
# The programs of examples/c, and the one in README.md, are compiled as their readers would compile
# them, and do what they say.
. "$SOURCE_ROOT/tests/tap.sh"

sanitize=
nm -D "$BUILD_ROOT/libcow.so.0" | grep -q __asan && sanitize="-fsanitize=address,undefined"

build() { # NAME SOURCE
	# shellcheck disable=SC2086
	ok "$1 compiles without a warning" $CC -std=gnu17 -O1 -g -Wall -Wextra -Wpedantic -Wshadow \
		-Werror $sanitize -I"$SOURCE_ROOT/include" "$2" -o "$tmp/$1" -L"$BUILD_ROOT" -lcow -pthread \
		-Wl,-rpath,"$BUILD_ROOT"
}

awk '/^```c$/ { inside = 1; next } /^```/ { inside = 0 } inside' "$SOURCE_ROOT/README.md" \
	>"$tmp/readme.c"
build readme "$tmp/readme.c"
run "$tmp/readme"
is "$status: $out" "0: then 100, now 42" "the program in README.md"

for source in "$SOURCE_ROOT"/examples/c/*.c; do
	build "$(basename "$source" .c)" "$source"
done

run "$tmp/branches" 500
is "$status" 0 "branches"
contains "$out" "500 runs" "says how many runs it made"
contains "$out" " 0 wrong" "none saw what another did"

# Spilled pages want a disk.
mkdir "$tmp/spill"
run "$tmp/undo" "$tmp/spill"
case $err in
*tmpfs*) skip "undo" "the build is on tmpfs" ;;
*)
	is "$status" 0 "undo"
	contains "$out" "1000 steps kept: 4." "all steps, in what it was given"
	is "$(printf '%s\n' "$out" | grep -c 'and on again: the same$')" 3 "what was, is"
	;;
esac

echo "to be or not to be" >"$tmp/text"
run sh -c "'$tmp/heap' '$tmp/words' <'$tmp/text'"
is "$status" 0 "heap, first call"
run sh -c "'$tmp/heap' '$tmp/words' <'$tmp/text'"
is "$status" 0 "heap, second call"
is "$(printf '%s' "$out" | tr -s ' \n' ' ')" " 4 be 2 not 2 or 4 to" "pointers outlive the process"

# Eight clients write; the server is killed without warning; what was done two saves before is
# there, and all that is there is right.
cat >"$tmp/clients.py" <<'END'
import os, socket, subprocess, sys, threading, time

program, store = sys.argv[1:]
with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]


def start():
    process = subprocess.Popen([program, store, str(port)])
    while process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return process
        except OSError:
            time.sleep(0.02)
    sys.exit("kv ended")


def say(file, line):
    file.write(line + "\n")
    file.flush()
    return file.readline().strip()


def write(client):
    try:
        with socket.create_connection(("127.0.0.1", port)).makefile("rw") as file:
            while say(file, f"set {client}-{done[client]} value {done[client]}") == "ok":
                done[client] += 1
    except OSError:
        pass


done = [0] * 8
process = start()
threads = [threading.Thread(target=write, args=(client,)) for client in range(len(done))]
for thread in threads:
    thread.start()
time.sleep(1)
sure = list(done)
seen = len(os.listdir(store))
deadline = time.time() + 30
while len(os.listdir(store)) < seen + 2 and time.time() < deadline:
    time.sleep(0.1)  # of two more saves the second one began after that
process.kill()
process.wait()
for thread in threads:
    thread.join()

process = start()
lost = wrong = 0
with socket.create_connection(("127.0.0.1", port)).makefile("rw") as file:
    for client, count in enumerate(done):
        for number in range(count):
            value = say(file, f"get {client}-{number}")
            lost += value == "" and number < sure[client]
            wrong += value not in ("", f"value {number}")
process.kill()
process.wait()
print(f"{sum(sure) > 0} {lost} {wrong}")
END
run "$PYTHON" "$tmp/clients.py" "$tmp/kv" "$tmp/store"
is "$status: $out" "0: True 0 0" "kv has what was saved, and nothing else, after SIGKILL"
[ "$status" = 0 ] || diag "$err"

done_testing
