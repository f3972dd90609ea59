"""Builders of small images, image folders and archives."""

import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from distillation.base.params import make_params

PARAMS_FILE = Path(__file__).parents[2] / "params.yaml"


@pytest.fixture
def params_for():
    """Give the repository's parameters with another data set, small images and changes."""
    defaults = yaml.safe_load(PARAMS_FILE.read_text(encoding="utf-8"))

    def build(dataset, **changes):
        return make_params({**defaults, "image_size": 8, **changes, "dataset": str(dataset)})

    return build


@pytest.fixture
def encode():
    """Encode an array or a Pillow image."""

    def build(image, file_format="PNG", **options):
        if isinstance(image, np.ndarray):
            image = Image.fromarray(image)
        buffer = io.BytesIO()
        image.save(buffer, file_format, **options)
        return buffer.getvalue()

    return build


@pytest.fixture
def noise(encode):
    """Encode a noise image that depends on the seed alone."""

    def build(seed, size=(8, 8), file_format="PNG"):
        pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        return encode(pixels, file_format)

    return build


@pytest.fixture
def write():
    """Write `{path: content}` as a folder or, by the name's ending, as an archive.

    Contents are bytes, None for a folder, ("symlink", target) or ("hardlink", target).
    """

    def build(target, files):
        if target.name.endswith(".zip"):
            _write_zip(target, files)
        elif ".tar" in target.name or target.name.endswith(".tgz"):
            _write_tar(target, files)
        else:
            target.mkdir(parents=True)
            for name, content in files.items():
                path = target / name
                path.parent.mkdir(parents=True, exist_ok=True)
                if content is None:
                    path.mkdir(exist_ok=True)
                else:
                    path.write_bytes(content)
        return target

    return build


def _write_tar(target, files):
    mode = "w" if target.name.endswith(".tar") else "w:gz"
    with tarfile.open(target, mode) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            if content is None:
                info.type = tarfile.DIRTYPE
            elif isinstance(content, tuple):
                kind, info.linkname = content
                info.type = {"symlink": tarfile.SYMTYPE, "hardlink": tarfile.LNKTYPE}[kind]
            else:
                info.size = len(content)
            archive.addfile(info, io.BytesIO(content) if isinstance(content, bytes) else None)


def _write_zip(target, files):
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            if content is None:
                archive.writestr(f"{name}/", b"")
            elif isinstance(content, tuple):
                info = zipfile.ZipInfo(name)
                info.create_system = 3
                info.external_attr = 0o120777 << 16
                archive.writestr(info, content[1])
            else:
                archive.writestr(name, content)
