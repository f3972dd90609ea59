"""What the images are: samples of every class, counts, source and checksum."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from distillation.report.images import to_data_uri
from distillation.report.inputs import Inputs

_MOST_SAMPLES = 60
_MOST_A_CLASS = 6
_MOST_CLASSES = 100
"""Classes that have a sample in the page."""
_SPLITS = ("train", "labeled", "validation", "test")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassSamples:
    """Training images of a class, the first ones."""

    name: str
    images: list[str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataCard:
    """Everything the page says of the data."""

    facts: list[tuple[str, str]]
    samples: list[ClassSamples]
    num_classes: int
    splits: tuple[str, ...]
    counts: list[tuple[str, list[int]]]
    """Class by class, in the order of `splits`."""
    totals: list[int]


def make_data_card(inputs: Inputs) -> DataCard:
    """Describe the prepared set."""
    data = inputs.data
    counts = data.counts()
    rows = [(name, [counts[split][name] for split in _SPLITS]) for name in data.class_names]
    num_samples = max(1, min(_MOST_A_CLASS, _MOST_SAMPLES // data.num_classes))
    return DataCard(
        facts=_facts(inputs),
        samples=[
            ClassSamples(
                name=name,
                images=[
                    to_data_uri(data.train.images[int(place)])
                    for place in np.flatnonzero(data.train.labels == number)[:num_samples]
                ],
            )
            for number, name in enumerate(data.class_names[:_MOST_CLASSES])
        ],
        num_classes=data.num_classes,
        splits=tuple("labelled" if split == "labeled" else split for split in _SPLITS),
        counts=rows,
        totals=[sum(counts[split].values()) for split in _SPLITS],
    )


def _facts(inputs: Inputs) -> list[tuple[str, str]]:
    provenance: dict[str, Any] = dict(inputs.provenance)
    side = inputs.data.image_size
    sha256 = provenance.get("sha256")
    return [
        ("source", str(provenance["source"])),
        ("file", str(provenance.get("file", "not recorded"))),
        ("SHA-256", sha256 or "none: no single file was read"),
        ("fingerprint of the prepared set", inputs.data.fingerprint),
        ("image size", f"{side} × {side} pixels, RGB"),
        ("classes", str(inputs.data.num_classes)),
    ]
