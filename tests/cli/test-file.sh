#!/bin/sh
# SPDX-License-Identifier: MIT
#
# cow file: what it refuses, and what it finds on real file systems: clones and snapshots on btrfs
# and XFS, files of overlay mounts, each beside what another program says of the same files. The
# images are mounted in a namespace of their own: nothing is left when the test ends, however.
. "$SOURCE_ROOT/tests/tap.sh"

# --- what needs no privilege ---

run "$COW" file
is "$status" 2 "no path: exit status"
run "$COW" file --all "$tmp"
is "$status" 2 "--all without --recursive: exit status"
is "$err" "cow file: --all needs --recursive" "--all without --recursive: message"
run "$COW" file "$tmp/nowhere"
is "$status" 1 "a path that is not there: exit status"
is "$err" "cow file: $tmp/nowhere: No such file or directory" "a path that is not there: message"
run "$COW" file ""
is "$status" 2 "an empty path: exit status"
run "$COW" file "$(printf 'red\033[31m\nline\302\233m')"
is "$err" "cow file: red?[31m?line??m: No such file or directory" "a message cannot move the cursor"
run "$COW" file "$tmp"
is "$status" 1 "a directory without --recursive: exit status"
contains "$err" "give --recursive" "a directory without --recursive: message"
mkfifo "$tmp/pipe"
run timeout 10 "$COW" file "$tmp/pipe"
is "$status" 1 "a pipe is not opened: exit status"
contains "$err" "neither a regular file nor a directory" "a pipe is not opened: message"
run "$COW" file /proc/self/status
is "$status" 0 "a file system without extents: exit status"
contains "$out" "no FIEMAP" "a file system without extents: told"

mkdir "$tmp/walk" "$tmp/walk/deep"
echo one >"$tmp/walk/one"
ln "$tmp/walk/one" "$tmp/walk/deep/two"
ln -s one "$tmp/walk/link"
name=$(printf 'red\033[31m\nline')
echo three >"$tmp/walk/$name"
run timeout 10 "$COW" file -r --all "$tmp/walk"
is "$status" 0 "a directory: exit status"
contains "$out" "1 further names of files that were counted" "a hard link counts once"
contains "$out" "1 that are no files" "a symbolic link is not followed"
contains "$out" 'red\x1b[31m\nline' "names are escaped"
run "$COW" file -r "$tmp/walk" --json
cp "$tmp/run.out" "$tmp/walk.json"
ok "JSON of a directory" "$PYTHON" - "$tmp/walk.json" <<'END'
import json, sys
report = json.load(open(sys.argv[1]))
assert list(report)[0] == "schema" and report["schema"] == "cow-file/1", report
row, = report["paths"]
assert (row["files"], row["hard_links"], row["skipped"], row["directories"]) == (2, 1, 1, 2), row
assert row["size_bytes"] == 10 and row["overlay"] is None and row["subvolume"] is None, row
END
touch "$tmp/secret"
chmod 0 "$tmp/secret"
if [ "$(id -u)" = 0 ]; then
	# A directory that another user may enter.
	chmod 755 "$tmp"
	run setpriv --reuid 65534 --regid 65534 --clear-groups "$COW" file "$tmp/secret" "$tmp/walk/one"
else
	run "$COW" file "$tmp/secret" "$tmp/walk/one"
fi
is "$status" 1 "an unreadable file: exit status"
contains "$err" "secret: Permission denied" "an unreadable file: message"
contains "$out" "walk/one" "an unreadable file: the others are shown"

# --- what needs file systems of its own ---

need=
[ "$(id -u)" = 0 ] || need="root, to mount images"
for tool in mkfs.btrfs mkfs.xfs mkfs.ext4 btrfs xfs_io filefrag; do
	command -v $tool >/dev/null 2>&1 || need="$tool (btrfs-progs, xfsprogs, e2fsprogs)"
done
[ -n "$need" ] || unshare --mount true 2>/dev/null || need="the right to a mount namespace"
if [ -n "$need" ]; then
	skip "btrfs" "needs $need"
	skip "xfs" "needs $need"
	skip "overlay" "needs $need"
	done_testing
fi

cat >"$tmp/lib.py" <<'END'
import json, os, re, subprocess, sys

def cow(*words):
    return json.loads(subprocess.check_output([os.environ["COW"], "file", "--json", *words]))

def rows(*words):
    report = cow(*words)
    return {os.path.basename(row["path"]): row for row in report["paths"]}, report["total"]

def same(got, expected, what):
    if got != expected:
        sys.exit(f"{what}: got {got}, expected {expected}")

def write(path, size, offset=0):
    with open(path, "r+b" if os.path.exists(path) else "wb") as file:
        file.seek(offset)
        file.write(os.urandom(size))

def run(*words):
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout

def clone_checks(directory):
    """A clone of 4 MiB with 64 KiB of its own, a hole, space allocated ahead."""
    os.chdir(directory)
    write("a", 4 << 20)
    run("cp", "--reflink=always", "a", "b")
    run("sync", "-f", ".")
    row, total = rows("a", "b")
    same(row["a"]["shared_bytes"], 4 << 20, "a clone shares all")
    same(row["b"]["exclusive_bytes"], 0, "a clone has nothing of its own")
    same(total["unique_bytes"], 4 << 20, "a clone takes nothing")
    same(total["shared_outside_bytes"], 0, "nobody else has it")
    write("b", 64 << 10, 1 << 20)
    row, total = rows("a", "b")
    same(row["b"]["exclusive_bytes"], 64 << 10, "a write un-shares what it writes")
    same(row["b"]["shared_inside_bytes"], (4 << 20) - (64 << 10), "the rest is shared")
    same(total["unique_shared_inside_bytes"], (4 << 20) - (64 << 10), "once")
    row, total = rows("b")
    same(total["shared_outside_bytes"], (4 << 20) - (64 << 10), "what is not named is outside")
    run("truncate", "-s", "1M", "hole")
    write("hole", 4096, 512 << 10)
    run("fallocate", "-l", "256K", "ahead")
    row, total = rows("hole", "ahead")
    same(row["hole"]["hole_bytes"], (1 << 20) - 4096, "a hole")
    same(row["hole"]["mapped_bytes"], 4096, "a page")
    same(row["ahead"]["unwritten_bytes"], 256 << 10, "unwritten")

def filefrag(path):
    """[offset, place, length] in bytes, of real extents."""
    extents = []
    for line in run("filefrag", "-v", "-b4096", path).splitlines():
        found = re.match(r"\s*\d+:\s*(\d+)\.\.\s*\d+:\s*(\d+)\.\.\s*\d+:\s*(\d+):", line)
        if found:
            extents.append([4096 * int(number) for number in found.groups()])
    return extents

def extents(path):
    return [[e["offset_bytes"], e["place_bytes"], e["length_bytes"]]
            for e in cow("--extents", path)["extents"]]
END

cat >"$tmp/btrfs.py" <<'END'
from lib import *
clone_checks(sys.argv[1])
same(extents("b"), filefrag("b"), "extents as filefrag has them")

# As btrfs itself counts: total, exclusive, shared by the set.
du = run("btrfs", "filesystem", "du", "--raw", "a", "b").splitlines()[1:]
row, _ = rows("a", "b")
for line in du:
    total, exclusive, _, name = line.split(None, 3)
    same(row[name]["mapped_bytes"], int(total), f"btrfs du: {name}")
    # There what a clone beside it has is not exclusive either.
    same(row[name]["exclusive_bytes"], int(exclusive), f"btrfs du: exclusive bytes of {name}")

run("btrfs", "subvolume", "create", "sub")
write("sub/x", 1 << 20)
write("sub/y", 1 << 20)
run("btrfs", "subvolume", "snapshot", "-r", "sub", "snap")
run("sync", "-f", ".")
write("sub/x", 128 << 10, 256 << 10)
row, total = rows("-r", "sub", "snap")
same(row["snap"]["subvolume"]["snapshot_of"], row["sub"]["subvolume"]["uuid"], "a snapshot of sub")
same(row["snap"]["subvolume"]["read_only"], True, "read-only")
same(row["sub"]["subvolume"]["read_only"], False, "writable")
same(row["sub"]["exclusive_bytes"], 128 << 10, "what was written since")
same(total["unique_bytes"], (2 << 20) + (128 << 10), "of both")
same(total["file_system"] if "file_system" in total else row["sub"]["file_system"], "btrfs", "type")
text = run(os.environ["COW"], "file", "-r", "sub", "snap")
assert "a snapshot of sub" in text, text
du = run("btrfs", "filesystem", "du", "--raw", "-s", "sub", "snap").splitlines()[1:]
for line in du:
    total, exclusive, _, name = line.split(None, 3)
    same(row[name]["mapped_bytes"], int(total), f"btrfs du: {name}")

# Inline and compressed data are named.
write("small", 100)
with open("text", "wb") as file:
    file.write(b"copy on write\n" * 40000)
run("sync", "-f", ".")
run("btrfs", "filesystem", "defragment", "-czstd", "text")
run("cp", "--reflink=always", "text", "text2")
run("sync", "-f", ".")
row, total = rows("small", "text", "text2")
assert row["small"]["inline_bytes"] > 0, row["small"]
same(row["text"]["compressed_bytes"], row["text"]["mapped_bytes"], "compressed")
same(row["text2"]["shared_inside_bytes"], row["text2"]["mapped_bytes"], "compressed and shared")
END

cat >"$tmp/xfs.py" <<'END'
from lib import *
clone_checks(sys.argv[1])
same(extents("b"), filefrag("b"), "extents as filefrag has them")
# xfs_io tells holes, too, and units of 512 bytes: OFFSET..OFFSET PLACE..PLACE LENGTH FLAGS
found = re.findall(r"\d+: \[(\d+)\.\.\d+\]: (\d+)\.\.\d+\s*$", run("xfs_io", "-r", "-c", "fiemap", "b"), re.M)
same([e[:2] for e in extents("b")], [[512 * int(a), 512 * int(b)] for a, b in found], "as xfs_io has them")
END

cat >"$tmp/overlay.py" <<'END'
from lib import *
base = sys.argv[1]
os.chdir(base)
for name in "lower", "lower/d", "lower/gone", "low:er2", "upper", "work", "merged":
    os.mkdir(name)
write("lower/kept", 1 << 20)
write("lower/changed", 1 << 20)
write("lower/removed", 4096)
write("lower/d/deep", 64 << 10)
write("low:er2/second", 32 << 10)
write("low:er2/kept", 4096)
options = f"lowerdir={base}/lower:{base}/low\\:er2,upperdir={base}/upper,workdir={base}/work"
run("mount", "-t", "overlay", "overlay", "-o", options + ",redirect_dir=on", "merged")
write("merged/changed", 4096)           # copies 1 MiB up
write("merged/new", 16 << 10)
os.unlink("merged/removed")
os.rmdir("merged/gone")
os.mkdir("merged/gone")                 # opaque
os.rename("merged/d", "merged/e")       # redirected
run("sync", "-f", "merged")
row, total = rows("-r", "merged")
o = row["merged"]["overlay"]
same(o["unknown_files"], 0, "all layers are seen")
same((o["copied_up_files"], o["copied_up_bytes"]), (1, 1 << 20), "copied up")
same(o["hidden_bytes"], 1 << 20, "what that hides")
same((o["upper_files"], o["upper_bytes"]), (1, 16 << 10), "new")
same((o["lower_files"], o["lower_bytes"]), (3, (1 << 20) + (64 << 10) + (32 << 10)), "below")
# Of the three names that went, the renamed directory's counts as well.
same((o["whiteouts"], o["opaque_directories"], o["redirected_directories"]), (2, 1, 1), "marks")
row, _ = rows("-r", "--all", "merged")
same({name: row[name]["layer"] for name in ("kept", "changed", "new", "deep", "second")},
     {"kept": "lower", "changed": "copied-up", "new": "upper", "deep": "lower", "second": "lower"},
     "layers")
same(extents("merged/e/deep"), extents("lower/d/deep"), "the file of the layer is looked at")
row, _ = rows("merged/e/deep")
same(row["deep"]["layer"], "lower", "a single file")

# Two containers on one image: its files are one another's.
for name in "upper2", "work2", "merged2":
    os.mkdir(name)
run("mount", "-t", "overlay", "overlay", "-o",
    f"lowerdir={base}/lower,upperdir={base}/upper2,workdir={base}/work2,metacopy=on", "merged2")
row, total = rows("merged/kept", "merged2/kept")
same(total["unique_bytes"], 1 << 20, "the lower file counts once")
same(total["unique_shared_inside_bytes"], 1 << 20, "and is shared")
os.chmod("merged2/changed", 0o600)      # the metadata alone
row, total = rows("merged2/changed")
same(row["changed"]["overlay"]["metadata_only_files"], 1, "metadata only")
same(extents("merged2/changed"), extents("lower/changed"), "its data is below")

# A layer of data alone: a lower file names the one there that has its content (Linux 6.5).
for name in "data", "named", "upper3", "work3", "merged3":
    os.mkdir(name)
write("data/blob", 128 << 10)
with open("named/file", "wb") as file:
    file.truncate(128 << 10)
os.setxattr("named/file", "trusted.overlay.metacopy", b"")
os.setxattr("named/file", "trusted.overlay.redirect", b"/blob")
if subprocess.run(["mount", "-t", "overlay", "overlay", "-o",
                   f"lowerdir={base}/named::{base}/data,upperdir={base}/upper3,"
                   f"workdir={base}/work3,metacopy=on,redirect_dir=on", "merged3"]).returncode == 0:
    same(open("merged3/file", "rb").read(), open("data/blob", "rb").read(), "the kernel finds it")
    same(extents("merged3/file"), extents("data/blob"), "so does cow file")

# What is the kernel's own is not opened.
os.makedirs("walk/proc")
run("mount", "-t", "proc", "proc", "walk/proc")
row, total = rows("-r", "walk")
same((total["files"], total["skipped"]), (0, 1), "/proc is passed over")

# A bind mount of a part of it.
os.mkdir("part")
run("mount", "--bind", "merged/e", "part")
row, _ = rows("part/deep")
same(row["deep"]["layer"], "lower", "through a bind mount")
END

cat >"$tmp/inside.sh" <<'END'
set -e
cd "$1"
kind=$2
case $kind in
btrfs) truncate -s 256M image && mkfs.btrfs -q image >/dev/null ;;
xfs) truncate -s 512M image && mkfs.xfs -q -f image ;;
esac
mkdir -p disk
case $kind in
overlay) mount -t tmpfs tmpfs disk && truncate -s 256M disk/image && mkfs.ext4 -q disk/image &&
	mount -o loop disk/image disk ;;
*) mount -o loop image disk ;;
esac
"$PYTHON" "$1/$kind.py" "$1/disk"
END

for kind in btrfs xfs overlay; do
	ok "$kind" unshare --mount --propagation private sh "$tmp/inside.sh" "$tmp" $kind
	rm -f "$tmp/image"
done
done_testing
