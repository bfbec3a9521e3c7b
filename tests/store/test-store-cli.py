# SPDX-License-Identifier: MIT
"""cow store from outside: what its actions say and do, what they refuse, and damage of every kind."""

import fcntl
import json
import os
import random
import shutil
import subprocess

from support import COW, Skip, Store, case, equal, fails, main, run, store_json

SEED = int(os.environ.get("SEED", random.randrange(1 << 30)))
FLIPS = int(os.environ.get("FLIPS", 120))
print(f"# SEED={SEED} FLIPS={FLIPS}")


def contains(text, *parts):
    for part in parts:
        assert part in text, f"'{part}' is not in: {text}"


@case
def log_and_info(directory):
    store = Store(directory, 21, 12, "no-compact")
    listed = store_json("log", store.directory)
    equal(listed["schema"], "cow-store/1", "schema")
    equal({layer["id"] for layer in listed["layers"]}, set(store.layers), "the layers")
    equal([layer["id"] for layer in listed["layers"] if layer["head"]], [store.model["head"]], "HEAD")
    tags = {tag: layer["id"] for layer in listed["layers"] for tag in layer["tags"]}
    equal(tags, store.model["tags"], "tags")
    sequence = [layer["sequence"] for layer in listed["layers"]]
    equal(sequence, sorted(sequence, reverse=True), "newest first")
    text = run(COW, "store", "log", store.directory)
    contains(text, "HEAD", f"{len(store.layers)} layers", *[layer[:8] for layer in store.layers])
    equal(len(store_json("log", store.directory, "-n", "3")["layers"]), 3, "--limit")
    contains(run(COW, "store", "log", "-n", "3", store.directory), "the newest 3 are shown")
    head = store.model["head"]
    for name in (head, head[:8], "HEAD"):
        equal(store_json("info", store.directory, name)["layer"]["id"], head, f"named {name}")
    for tag, layer in store.model["tags"].items():
        equal(store_json("info", store.directory, tag)["layer"]["id"], layer, f"named {tag}")
    info = store_json("info", store.directory)["layer"]
    equal((info["length_bytes"], info["page_size"]), (store.length, 4096), "what is known of HEAD")
    contains(run(COW, "store", "info", store.directory), head, "region", "4.00 MiB (4,198,400 bytes)")


@case
def the_picture_on_a_terminal(directory):
    if not shutil.which("script"):
        raise Skip("script(1) is not installed")
    store = Store(directory, 22, 10, "no-compact")
    command = f"{COW} store log {store.directory}"
    env = {**os.environ, "TERM": "xterm", "LC_ALL": "C.UTF-8"}
    env.pop("NO_COLOR", None)
    shown = subprocess.run(["script", "-qec", command, "/dev/null"], stdin=subprocess.DEVNULL, env=env,
                           capture_output=True, check=True).stdout.decode()
    contains(shown, "●", "\033[")
    shown = subprocess.run(["script", "-qec", command + " --ascii --no-color", "/dev/null"], env=env,
                           stdin=subprocess.DEVNULL, capture_output=True, check=True).stdout.decode()
    assert "●" not in shown and "\033[" not in shown, shown
    contains(shown, "* ")


@case
def diff_is_the_difference(directory):
    store = Store(directory, 23, 9, "no-compact")
    layers = list(store.layers)
    for older, newer in zip(layers, layers[1:]):
        expected = {offset for offset, a, b in
                    zip(store.model["offsets"], store.layers[older], store.layers[newer]) if a != b}
        found = store_json("diff", store.directory, older, newer, status=1 if expected else 0)
        pages = {at for part in found["ranges"]
                 for at in range(part["offset"], part["offset"] + part["length_bytes"], 4096)}
        equal(pages, expected, f"{older} {newer}")
        equal(found["different_bytes"], 4096 * len(expected), "their sum")
    contains(run(COW, "store", "diff", store.directory, layers[0], layers[0]), "nothing differs")


@case
def tags_deletion_compaction(directory):
    store = Store(directory, 24, 8, "chain")
    head, listed = store.model["head"], store.log()
    middle = listed[head]["parent"] or next(iter(set(store.layers) - {head}))
    for tag in store.model["tags"]:
        run(COW, "store", "tag", "--remove", store.directory, tag)
    contains(run(COW, "store", "tag", store.directory), "has no tags")
    run(COW, "store", "tag", store.directory, middle[:8], "kept")
    run(COW, "store", "tag", store.directory, "now")
    equal({tag["tag"]: tag["id"] for tag in store_json("tag", store.directory)["tags"]},
          {"kept": middle, "now": head}, "two tags")
    contains(fails(COW, "store", "delete", store.directory, "kept"), "a tag names it")
    contains(fails(COW, "store", "tag", store.directory, "HEAD", "a/b"), "'a/b' is no name for a tag")
    contains(fails(COW, "store", "tag", "--remove", store.directory, "x"), "there is no tag 'x'")
    run(COW, "store", "tag", "--remove", store.directory, "kept")
    done = store_json("delete", store.directory, middle)
    equal((done["id"], middle in store.log() and not store.log()[middle]["deleted"]),
          (middle, False), "deleted")
    contains(fails(COW, "store", "info", store.directory, middle), "no layer or tag")
    found = store_json("compact", store.directory)
    assert found["after_bytes"] <= found["before_bytes"], found
    assert not os.path.exists(store.path(middle)), "its file is gone"
    for layer in set(store.layers) - {middle}:
        path = os.path.join(directory, "out.raw")
        run(COW, "store", "export", store.directory, layer, path)
        with open(path, "rb") as got, open(store.reference(layer), "rb") as expected:
            equal(got.read(), expected.read(), f"{layer} reads as before")
        os.remove(path)
    equal(store_json("verify", store.directory)["good"], True, "all is well")
    contains(run(COW, "store", "verify", store.directory), "all good")


@case
def cold_layers_are_compressed(directory):
    """Text, zeroes and what cannot be packed: three images, the last of which is HEAD."""
    store, images = os.path.join(directory, "store"), []
    for number in range(3):
        images.append(os.path.join(directory, f"{number}.raw"))
        with open(images[-1], "wb") as file:
            for part in range(5):
                file.write({0: b"%d of %d, " % (part, number) * 200000, 1: bytes(1 << 20),
                            2: random.randbytes(1 << 20)}[part % 3][:1 << 20])
    layers = [store_json("import", store, image)["layer"]["id"] for image in images]
    run(COW, "store", "tag", store, layers[0], "kept")
    done = subprocess.run([COW, "store", "compact", "--compress", "--json", store],
                          capture_output=True, text=True, check=False)
    if "built without zstd" in done.stderr:
        raise Skip(done.stderr.splitlines()[0])
    found = json.loads(done.stdout)
    equal((found["compressed"], found["rewritten"]), (1, 1), "neither HEAD nor what has a tag")
    assert found["compressed_to_bytes"] < found["compressed_from_bytes"], found
    assert found["after_bytes"] < found["before_bytes"], found
    run(COW, "store", "tag", "--remove", store, "kept")
    contains(run(COW, "store", "compact", "--compress", store), "1 layer compressed: ")
    contains(run(COW, "store", "compact", "--compress", store), "0 rewritten")
    log = {layer["id"]: layer["compressed"] for layer in store_json("log", store)["layers"]}
    equal([log[layer] for layer in layers], [True, True, False], "which are compressed")
    for layer, image in zip(layers, images):
        path, out = os.path.join(store, layer + ".qcow2"), os.path.join(directory, "out.raw")
        run("qemu-img", "check", "-q", path)
        run(COW, "store", "export", store, layer, out)
        run("cmp", out, image)
        run("qemu-img", "convert", "-O", "raw", path, out)
        run("cmp", "-n", os.path.getsize(image), out, image)
        os.remove(out)
    info = json.loads(run("qemu-img", "info", "--output=json",
                          os.path.join(store, layers[0] + ".qcow2")))
    equal((info["cluster-size"], info["format-specific"]["data"]["compression-type"]),
          (65536, "zstd"), "what QEMU says of it")
    equal(store_json("verify", store)["good"], True, "all is well")


@case
def refusals(directory):
    store = Store(directory, 26, 4, "chain")
    for words, message in (
            (["lgo", store.directory], "there is no action 'lgo'"),
            (["diff", store.directory], "give: cow store diff DIR OLDER [NEWER]"),
            (["log", store.directory, "x"], "give: cow store log DIR"),
            (["log", "--depth", "3", store.directory], "--depth is not for log"),
            (["import", "--format", "vmdk", store.directory, "x"], "'vmdk' is not read"),
            (["compact", "--depth", "0", store.directory], "out of range")):
        contains(fails(COW, "store", *words, status=2), message)
    nowhere = os.path.join(directory, "nowhere")
    contains(fails(COW, "store", "log", status=2), "give: cow store log DIR")
    contains(fails(COW, "store", "log", nowhere), f"there is no directory {nowhere}")
    contains(fails(COW, "store", "import", nowhere, os.path.join(directory, "no image")),
             "cannot import")
    equal(os.path.exists(nowhere), False, "no store was made for an image that is not there")
    contains(fails(COW, "store", "log", directory), "HEAD: missing: this is no store")
    contains(fails(COW, "store", "log", COW), "not a directory")
    contains(fails(COW, "store", "info", store.directory, "nothing"), "no layer or tag 'nothing'")
    contains(fails(COW, "store", "info", store.directory, "12"), "no layer or tag '12'")
    path = os.path.join(directory, "there")
    with open(path, "w", encoding="ascii") as file:
        file.write("precious")
    contains(fails(COW, "store", "export", store.directory, path), "is there already")
    with open(path, encoding="ascii") as file:
        equal(file.read(), "precious", "what was there")
    contains(fails(COW, "store", "export", store.directory, "/dev/null/x"), "cannot export")
    with open(os.path.join(store.directory, "lock"), "r+b") as lock:
        fcntl.lockf(lock, fcntl.LOCK_EX, 1, 0)
        error = fails(COW, "store", "tag", store.directory, "x")
        contains(error, "another process has the store open for writing")
        run(COW, "store", "log", store.directory)
    run(COW, "store", "tag", store.directory, "x")


def damage_of(store):
    """What verify says; never a crash."""
    done = subprocess.run([COW, "store", "verify", "--json", store], stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), f"status {done.returncode}: {done.stderr}"
    return json.loads(done.stdout)["damage"] if done.stdout else [{"id": None, "what": done.stderr}]


@case
def every_flipped_bit_is_reported(directory):
    """In data, in metadata, in checksums, in the footer, in HEAD: random places and all borders."""
    store = Store(directory, 27, 7, "chain")
    generator = random.Random(SEED)
    equal(damage_of(store.directory), [], "before")
    names = sorted(name for name in os.listdir(store.directory) if name != "lock")
    for number in range(FLIPS):
        name = names[number % len(names)]
        path = os.path.join(store.directory, name)
        size = os.path.getsize(path)
        border = generator.choice([0, 8, 20, 24, 40, 72, size - 1, size - 4096, size - 4])
        at = border % size if number % 3 == 0 else generator.randrange(size)
        bit = 1 << generator.randrange(8)
        with open(path, "r+b") as file:
            file.seek(at)
            byte = file.read(1)[0]
            file.seek(at)
            file.write(bytes([byte ^ bit]))
        found = damage_of(store.directory)
        assert found, f"byte {at} of {name}, bit {bit}, is not reported"
        if name != "HEAD":
            assert any(one["id"] == name[:36] for one in found), f"byte {at} of {name}: {found}"
        subprocess.run([COW, "store", "log", store.directory], stdin=subprocess.DEVNULL,
                       capture_output=True, check=False)
        with open(path, "r+b") as file:
            file.seek(at)
            file.write(bytes([byte]))
    equal(damage_of(store.directory), [], "after all was put back")


@case
def what_is_named_is_missing(directory):
    """A store whose newest layer was removed by hand is no empty store."""
    store = Store(directory, 29, 8, "no-compact")
    head = store.model["head"]
    run(COW, "store", "tag", store.directory, "HEAD", "lost")
    os.remove(store.path(head))
    for words in (["info", store.directory], ["export", store.directory, directory + "/out"]):
        said = fails(COW, "store", *words)
        contains(said, f"cow store: {store.directory}/HEAD: names the layer {head}, which is missing",
                 f"the tag lost names the layer {head}, which is missing")
        assert "no HEAD yet" not in said, said
    said = fails(COW, "store", "info", store.directory, "lost")
    assert "no layer or tag" not in said, said
    contains(fails(COW, "store", "log", store.directory, status=0), head)


@case
def files_cut_swapped_missing(directory):
    store = Store(directory, 28, 8, "chain")
    log = store.log()
    child = next(layer for layer in log if log[layer]["parent"])
    parent = log[child]["parent"]
    saved = os.path.join(directory, "saved")
    shutil.copy(store.path(child), os.path.join(directory, "whole"))

    def with_change(change, *parts):
        shutil.copytree(store.directory, saved)
        change()
        found = damage_of(store.directory)
        assert found, parts
        contains(json.dumps(found), *parts)
        shutil.rmtree(store.directory)
        os.rename(saved, store.directory)

    with_change(lambda: os.remove(store.path(parent)), child, "parent is missing")
    with_change(lambda: os.truncate(store.path(child), 8192), child)
    with_change(lambda: os.truncate(store.path(child), 0), child)
    with_change(lambda: os.truncate(store.path(child), os.path.getsize(store.path(child)) - 4096), child)
    with_change(lambda: shutil.copy(store.path(child), store.path(parent)), parent)
    with_change(lambda: os.remove(store.path(store.model["head"])), "HEAD names a layer that is missing")
    with_change(lambda: shutil.copy(os.path.join(store.directory, "HEAD"), store.path(child)), child)

    def longer():
        with open(store.path(child), "ab") as file:
            file.write(bytes(4096))

    with_change(longer, child)

    # A damaged layer hides no other.
    with open(store.path(child), "r+b") as file:
        file.seek(-100, 2)
        file.write(b"x")
    listed = store.log()
    equal({layer for layer in listed if listed[layer]["damaged"]}, {child}, "the damaged one")
    equal(set(listed), set(store.layers), "and all the others")
    contains(run(COW, "store", "log", store.directory), "damaged")
    shutil.copy(os.path.join(directory, "whole"), store.path(child))
    equal(damage_of(store.directory), [], "all was put back")


if __name__ == "__main__":
    main()
