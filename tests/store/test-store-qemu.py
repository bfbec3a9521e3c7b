# SPDX-License-Identifier: MIT
"""The store's layers as QEMU's tools see them, and QEMU's images as the store sees them.

Layers come from random workloads (store-work), with a reference for each: what the region held.
A layer's guest is longer than its region by the layer's own manifest; "the region" is its front.
"""

import json
import os
import re
import shutil
import subprocess
import time

from support import COW, Store, case, equal, fails, main, process, run, run_json, store_json

PAGE = 4096
for tool in ("qemu-img", "qemu-io", "qemu-nbd"):
    if not shutil.which(tool):
        print(f"1..0 # SKIP {tool} is not installed")
        raise SystemExit(0)


def front(path, length, driver="qcow2"):
    """The first bytes of an image, as a block device for the tools."""
    return "json:" + json.dumps({
        "driver": "raw", "size": length, "offset": 0,
        "file": {"driver": driver, "file": {"driver": "file", "filename": path}},
    })


def compare(store, path, layer):
    """Everything before the manifest is equal: that is where the first difference is."""
    done = subprocess.run(["qemu-img", "compare", "-f", "qcow2", "-F", "raw", path,
                           store.reference(layer)],
                          capture_output=True, text=True, check=False)
    found = re.search(r"Content mismatch at offset (\d+)!", done.stdout)
    assert done.returncode == 1 and found, f"{path}: {done.stdout}{done.stderr}"
    assert int(found.group(1)) >= store.length, f"{path}: {done.stdout}"


def read(path, length):
    with open(path, "rb") as file:
        return file.read(length)


def chain(store, layer):
    """From a layer to the bottom, as the store says."""
    log = store.log()
    while layer:
        yield layer
        layer = log[layer]["parent"]


def deepest(store, least):
    """The longest chain, from its top."""
    found = max((list(chain(store, layer)) for layer in store.layers), key=len)
    assert len(found) >= least, f"a chain worth the name: {found}"
    return found


@case
def check_and_compare_every_layer(directory):
    for seed in (1, 2, 3, 4):
        under = os.path.join(directory, str(seed))
        os.mkdir(under)
        store = Store(under, seed, 24)
        assert store.layers
        for name in os.listdir(store.directory):
            if not name.endswith(".qcow2"):
                continue
            found = run_json("qemu-img", "check", "--output=json", os.path.join(store.directory, name))
            for key in ("corruptions", "leaks", "check-errors"):
                equal(found.get(key, 0), 0, f"{name}: {key}")
        for layer in store.layers:
            compare(store, store.path(layer), layer)


@case
def info_lists_the_chain(directory):
    store = Store(directory, 5, 12, "chain")
    ours = deepest(store, 4)
    found = run_json("qemu-img", "info", "--output=json", "--backing-chain", store.path(ours[0]))
    equal([os.path.basename(image["filename"]) for image in found],
          [layer + ".qcow2" for layer in ours], "the chain")
    for image in found:
        equal(image["format"], "qcow2", "format")
        equal(image["cluster-size"], PAGE, "cluster size")
        assert not image["dirty-flag"]
        data = image["format-specific"]["data"]
        assert not data["corrupt"] and not data["lazy-refcounts"] and not data["extended-l2"], data
        if "backing-filename" in image:
            assert "/" not in image["backing-filename"], "relative names"
            equal(image["backing-filename-format"], "qcow2", "format of the parent")


def expected_depth(store, layers, page):
    """How far below the first of these layers a page's content lies; None: nowhere."""
    versions = [store.layers[layer][page] for layer in layers] + [0]
    for depth in range(len(layers)):
        if versions[depth] != versions[depth + 1]:
            return depth
    return None


@case
def map_says_what_the_model_says(directory):
    for seed in (6, 7):
        under = os.path.join(directory, str(seed))
        os.mkdir(under)
        store = Store(under, seed, 14, "no-compact")
        for layer in store.layers:
            layers = list(chain(store, layer))
            extents = run_json("qemu-img", "map", "--output=json", store.path(layer))
            for page, offset in enumerate(store.model["offsets"]):
                at = next(e for e in extents if e["start"] <= offset < e["start"] + e["length"])
                version, depth = store.layers[layer][page], expected_depth(store, layers, page)
                equal(at["zero"], version == 0, f"{layer} page {page} is zero")
                equal(at["data"], version != 0, f"{layer} page {page} is data")
                if version != 0:
                    # A full save holds everything: then it is nearer than the model knows.
                    assert at["depth"] <= depth, f"{layer} page {page}: {at} below {depth}"
                    held = [store.layers[one][page] for one in layers[:at["depth"] + 1]]
                    equal(set(held), {version}, f"{layer} page {page} is not changed above")
                    if at["depth"] < depth:
                        info = store_json("info", store.directory, layers[at["depth"]])["layer"]
                        equal(info["parent"], None, "nearer than its change: in a full save")
                elif at["depth"] < len(layers) - 1 and depth is not None:
                    equal(at["depth"], depth, f"{layer} page {page}: zero since")


@case
def rebase_and_back(directory):
    store = Store(directory, 8, 10, "chain")
    layers = deepest(store, 4)
    child, old, new = layers[0], layers[1], layers[3]
    copy = os.path.join(store.directory, "copy.qcow2")
    shutil.copy(store.path(child), copy)
    run("qemu-img", "rebase", "-F", "qcow2", "-b", new + ".qcow2", copy)
    compare(store, copy, child)
    run("qemu-img", "check", copy)
    run("qemu-img", "rebase", "-F", "qcow2", "-b", old + ".qcow2", copy)
    compare(store, copy, child)
    # Flattened, it stands alone.
    run("qemu-img", "rebase", "-b", "", copy)
    shutil.move(copy, os.path.join(directory, "alone.qcow2"))
    compare(store, os.path.join(directory, "alone.qcow2"), child)
    os.remove(os.path.join(directory, "alone.qcow2"))
    equal(store_json("verify", store.directory)["good"], True, "the store noticed nothing")


@case
def commit_and_the_damage_is_noticed(directory):
    """qemu-img commit writes into the parent: that one then reads as the child, and is no layer any
    more, which verify says."""
    store = Store(directory, 9, 8, "chain")
    layers = deepest(store, 2)
    child, parent = next((a, b) for a, b in zip(layers, layers[1:])
                         if store.layers[a] != store.layers[b])
    copies = os.path.join(directory, "copies")
    shutil.copytree(store.directory, copies)
    run("qemu-img", "commit", os.path.join(copies, child + ".qcow2"))
    compare(store, os.path.join(copies, parent + ".qcow2"), child)
    found = store_json("verify", copies, status=1)
    equal(found["good"], False, "verify of what was changed")
    assert parent in {damage["id"] for damage in found["damage"]}, found
    equal(store_json("verify", store.directory)["good"], True, "the original")


@case
def convert_into_other_formats_and_import_again(directory):
    store = Store(directory, 10, 9)
    layer = store.model["head"]
    source = front(store.path(layer), store.length)
    for name, options in {
        "plain.qcow2": ["-O", "qcow2"],
        "4k.qcow2": ["-O", "qcow2", "-o", "cluster_size=4k"],
        "2m.qcow2": ["-O", "qcow2", "-o", "cluster_size=2M"],
        "old.qcow2": ["-O", "qcow2", "-o", "compat=0.10"],
        "zlib.qcow2": ["-c", "-O", "qcow2"],
        "zstd.qcow2": ["-c", "-O", "qcow2", "-o", "compression_type=zstd"],
        "refcount1.qcow2": ["-O", "qcow2", "-o", "refcount_bits=1"],
        "plain.raw": ["-O", "raw"],
    }.items():
        image = os.path.join(directory, name)
        run("qemu-img", "convert", *options, source, image)
        into = os.path.join(directory, "into-" + name)
        found = store_json("import", into, image, "--tag", "imported")["layer"]
        equal(found["length_bytes"], store.length, f"{name}: length")
        equal((found["head"], found["tags"], found["parent"]), (True, ["imported"], None), name)
        back = os.path.join(directory, "back.raw")
        run(COW, "store", "export", into, "imported", back)
        equal(read(back, -1), read(store.reference(layer), -1), f"{name}: content")
        os.remove(back)
        equal(store_json("verify", into)["good"], True, f"{name}: verify")
        run("qemu-img", "check", os.path.join(into, found["id"] + ".qcow2"))


@case
def export_is_the_reference(directory):
    store = Store(directory, 11, 16)
    for number, layer in enumerate(store.layers):
        path = os.path.join(directory, f"{number}.raw")
        run(COW, "store", "export", store.directory, layer, path)
        equal(read(path, -1), read(store.reference(layer), -1), f"export of {layer}")
        assert os.stat(path).st_blocks * 512 <= (len(store.layers[layer]) + 8) * PAGE, "holes"


@case
def a_qemu_nbd_export_read_back(directory):
    store = Store(directory, 12, 10)
    layer, socket = store.model["head"], os.path.join(directory, "nbd")
    if len(socket) > 100:
        socket = os.path.relpath(socket)
    with process("qemu-nbd", "-r", "-t", "-f", "qcow2", "-k", os.path.abspath(socket),
                 store.path(layer)) as server:
        for _ in range(200):
            if os.path.exists(socket) or server.poll() is not None:
                break
            time.sleep(0.05)
        image = {"driver": "nbd", "server": {"type": "unix", "path": os.path.abspath(socket)}}
        copy = os.path.join(directory, "nbd.raw")
        run("qemu-img", "convert", "-O", "raw", "json:" + json.dumps(image), copy)
    equal(read(copy, store.length), read(store.reference(layer), -1), "what came over the network")


def edit(content, offset, length, byte):
    content[offset:offset + length] = bytes([byte]) * length


@case
def a_child_written_by_qemu_io(directory):
    """QEMU's overlays on a layer, in clusters of several sizes, are read as a base."""
    store = Store(directory, 13, 9)
    layer = store.model["head"]
    for cluster in ("4k", "64k", "512"):
        child = os.path.join(store.directory, "child.qcow2")
        run("qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", layer + ".qcow2", "-o",
            f"cluster_size={cluster}", child, str(store.length))
        expected = bytearray(read(store.reference(layer), -1))
        run("qemu-io", "-f", "qcow2", "-c", "write -P 0x5a 8192 4096", "-c", "write -P 0x6b 70000 5000",
            "-c", "write -z 0 4096", "-c", "write -P 0x7c 2093056 16384", child)
        edit(expected, 8192, 4096, 0x5a)
        edit(expected, 70000, 5000, 0x6b)
        edit(expected, 0, 4096, 0)
        edit(expected, 2093056, 16384, 0x7c)
        into, back = os.path.join(directory, "into" + cluster), os.path.join(directory, "back.raw")
        store_json("import", into, child)
        run(COW, "store", "export", into, back)
        equal(read(back, -1), bytes(expected), f"clusters of {cluster}")
        os.remove(back)
        os.remove(child)


@case
def what_is_not_read_is_refused_by_name(directory):
    kinds = {
        "extended": (["-o", "extended_l2=on,cluster_size=64k"], "extended L2 entries"),
        "data file": (["-o", "data_file=" + os.path.join(directory, "data")], "an external data file"),
    }
    for name, (options, message) in kinds.items():
        image = os.path.join(directory, "image.qcow2")
        run("qemu-img", "create", "-q", "-f", "qcow2", *options, image, "1M")
        into = os.path.join(directory, "into " + name)
        error = fails(COW, "store", "import", into, image)
        assert message in error and "image.qcow2" in error, f"{name}: {error}"
        os.remove(image)
    image = os.path.join(directory, "luks.qcow2")
    run("qemu-img", "create", "-q", "--object", "secret,id=s,data=x", "-f", "qcow2", "-o",
        "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10", image, "1M")
    error = fails(COW, "store", "import", os.path.join(directory, "luks"), image)
    assert "encryption" in error, error


@case
def bad_images_are_clear_errors(directory):
    store = os.path.join(directory, "store")
    missing = fails(COW, "store", "import", store, os.path.join(directory, "nowhere.raw"))
    assert "nowhere.raw" in missing and "No such file" in missing, missing
    child = os.path.join(directory, "child.qcow2")
    base = os.path.join(directory, "base.qcow2")
    run("qemu-img", "create", "-q", "-f", "qcow2", base, "1M")
    run("qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", base, child)
    os.remove(base)
    error = fails(COW, "store", "import", store, child)
    assert "base.qcow2" in error, error
    os.rename(child, base)
    error = fails(COW, "store", "import", store, base)
    assert "base.qcow2" in error, f"a circle: {error}"
    with open(base, "r+b") as file:
        file.truncate(100)
    error = fails(COW, "store", "import", store, base)
    assert "base.qcow2" in error, f"cut off: {error}"


if __name__ == "__main__":
    main()
