"""Folders whose `meta.json` holds checksums, changed as if their writer had written that."""

import json
import random

from distillation.base.checksums import hash_file, seal


def reseal(directory, **changes):
    """Make the checksums in `meta.json` fit; `changes` replace its entries, None removes one."""
    path = directory / "meta.json"
    meta = {**json.loads(path.read_text(encoding="utf-8")), **changes}
    meta.pop("sha256", None)
    if "files" in meta and "files" not in changes:
        names = [name for name in meta["files"] if (directory / name).is_file()]
        meta["files"] = {name: hash_file(directory / name) for name in names}
    kept = {key: value for key, value in meta.items() if value is not None}
    path.write_text(json.dumps(seal(kept)), encoding="utf-8")


def flip_bit(path, position, bit):
    """Flip one bit of a file in its place."""
    content = bytearray(path.read_bytes())
    content[position] ^= 1 << bit
    path.write_bytes(content)


def flips(size, *, count, seed=0):
    """Return seeded places and bits of a file of `size` bytes, its ends among them."""
    generator = random.Random(seed)
    places = {0, size - 1, *(generator.randrange(size) for _ in range(count))}
    return [(place, generator.randrange(8)) for place in sorted(places)]
