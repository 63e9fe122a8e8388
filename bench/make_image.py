"""Makes an image of ten layers, always the same, as `docker save` and as an OCI layout with gzip would hold it.

Its files are as large as those of a distribution's image (half of them below 4 KiB, the largest some MiB) and compress like those,
to two fifths: their bytes are words, of which some are frequent. Nothing is fetched, and of the host only gcc and busybox are used.
"""

import gzip
import hashlib
import io
import itertools
import json
import os
import random
import shutil
import tarfile

# MB of files in each layer, lowest first: a distribution, what is installed on it, the program.
LAYERS = [30, 20, 15, 10, 8, 6, 5, 3, 2, 1]
NAME = "localhost/kelson-bench"


class Content:
    def __init__(self, seed):
        self.random = random.Random(seed)
        words = [self.random.randbytes(self.random.randint(2, 16)) for _ in range(3000)]
        weights = list(itertools.accumulate(1 / (rank + 1) for rank in range(len(words))))
        self.pool = b"".join(self.random.choices(words, cum_weights=weights, k=4_000_000))

    def take(self, size):
        """Far apart in the pool: no compressor's window finds the same twice."""
        piece = 1 << 16
        starts = (self.random.randrange(len(self.pool) - piece) for _ in range(size // piece + 1))
        return b"".join(self.pool[start:start + piece] for start in starts)[:size]

    def size(self):
        return min(int(self.random.lognormvariate(8.3, 1.8)), 8 << 20)


def directory(name):
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.mtime = tarfile.DIRTYPE, 0o755, 1_700_000_000
    return info


def regular(name, size, mode=0o644):
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = size, mode, 1_700_000_000
    return info


def layer(file, content, number, megabytes, programs):
    """Returns how many entries it has."""
    left, count = megabytes * 1_000_000, 0
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name in ("usr", f"usr/part{number}"):
            tar.addfile(directory(name))
        while left > 0:
            if count % 8 == 0:
                place = f"usr/part{number}/package-{count // 64}/directory-{count // 8}"
                if count % 64 == 0:
                    tar.addfile(directory(os.path.dirname(place)))
                tar.addfile(directory(place))
            size = min(content.size(), left)
            tar.addfile(regular(f"{place}/file-{count}", size, 0o755 if count % 10 == 0 else 0o644),
                        io.BytesIO(content.take(size)))
            if count % 16 == 0:
                link = tarfile.TarInfo(f"{place}/link-{count}")
                link.type, link.linkname = tarfile.SYMTYPE, f"file-{count}"
                tar.addfile(link)
            left -= max(size, 1)
            count += 1
        # What the layer below has, this one takes away.
        if number > 0:
            tar.addfile(regular(f"usr/part{number - 1}/package-0/.wh.directory-0", 0))
        for name, path in programs.items():
            tar.addfile(regular(name, os.path.getsize(path), 0o755), open(path, "rb"))


def digest(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def make(place, scale, programs):
    """`docker.tar` and `layout/` below `place`, of `scale` times 100 MB, with `programs` (name to path) in the top layer.

    What is there is kept, if the same programs are in it."""
    stamp = hashlib.sha256(b"".join(open(path, "rb").read() for path in [__file__, *programs.values()])).hexdigest()
    try:
        if open(f"{place}/made").read() == stamp:
            return
    except FileNotFoundError:
        pass
    shutil.rmtree(place, ignore_errors=True)
    blobs = f"{place}/layout/blobs/sha256"
    os.makedirs(blobs)
    content, plain, packed = Content(1), [], []
    for number, megabytes in enumerate(LAYERS):
        path = f"{place}/layer"
        with open(path, "wb") as file:
            layer(file, content, number, megabytes * scale, programs if number == len(LAYERS) - 1 else {})
        plain.append(digest(path))
        os.rename(path, f"{place}/{plain[-1]}.tar")
        with open(f"{place}/{plain[-1]}.tar", "rb") as file, open(path, "wb") as out:
            with gzip.GzipFile(fileobj=out, mode="wb", compresslevel=6, mtime=0, filename="") as zipped:
                shutil.copyfileobj(file, zipped, 1 << 20)
        packed.append({"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": f"sha256:{digest(path)}",
                       "size": os.path.getsize(path)})
        os.rename(path, f"{blobs}/{packed[-1]['digest'][7:]}")

    config = json.dumps({
        "architecture": "amd64", "os": "linux", "created": "2023-11-14T22:13:20Z", "config": {"Cmd": ["/true"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hex}" for hex in plain]},
        "history": [{"created": "2023-11-14T22:13:20Z", "created_by": f"layer {number}"} for number in range(len(plain))],
    }).encode()

    def blob(data, kind):
        hex = hashlib.sha256(data).hexdigest()
        with open(f"{blobs}/{hex}", "wb") as file:
            file.write(data)
        return {"mediaType": f"application/vnd.oci.image.{kind}.v1+json", "digest": f"sha256:{hex}", "size": len(data)}

    described = blob(config, "config")
    manifest = blob(json.dumps({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
                                "config": described, "layers": packed}).encode(), "manifest")
    manifest["annotations"] = {"org.opencontainers.image.ref.name": "1"}
    for name, value in (("oci-layout", {"imageLayoutVersion": "1.0.0"}),
                        ("index.json", {"schemaVersion": 2, "manifests": [manifest]})):
        with open(f"{place}/layout/{name}", "w") as file:
            json.dump(value, file)

    name = described["digest"][7:] + ".json"
    with tarfile.open(f"{place}/docker.tar", "w") as tar:
        for hex in plain:
            tar.add(f"{place}/{hex}.tar", f"{hex}.tar")
            os.unlink(f"{place}/{hex}.tar")
        tar.addfile(regular(name, len(config)), io.BytesIO(config))
        listed = json.dumps([{"Config": name, "RepoTags": [f"{NAME}:1"], "Layers": [f"{hex}.tar" for hex in plain]}]).encode()
        tar.addfile(regular("manifest.json", len(listed)), io.BytesIO(listed))
    with open(f"{place}/made", "w") as file:
        file.write(stamp)
