"""All images of a folder or an archive in memory, as a test looks at them."""

import dataclasses

import numpy as np

from distillation.data.prepared import Split
from distillation.sources.decode import DataError
from distillation.sources.decoding import decode_all
from distillation.sources.files import FileSource, name_all


@dataclasses.dataclass
class Loaded:
    class_names: tuple[str, ...]
    splits: dict[str, Split]
    endings: list[str]
    doubts: tuple[str, ...]


def load_source(path, *, size=8):
    """Read a folder or an archive as `prepare` does, without making splits."""
    source = FileSource(path)
    images = {
        split: np.zeros((len(labels), size, size, 3), dtype=np.uint8)
        for split, labels in source.labels.items()
    }

    def store(sample):
        (images[sample.split][sample.index],) = sample.load([size])

    total = sum(map(len, source.labels.values()))
    if problems := decode_all(source.samples(), store, total=total, num_threads=2):
        raise DataError(name_all(problems, "files cannot be used"))
    return Loaded(
        class_names=source.class_names,
        splits={
            name: Split(images=images[name], labels=labels)
            for name, labels in source.labels.items()
        },
        endings=source.provenance()["image_endings"],
        doubts=source.doubts,
    )
