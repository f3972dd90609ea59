"""The lines of Python by which a reader of the card loads the student with timm alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def loading_code(timm_folder: Mapping[str, Any]) -> str:
    """Return a program that classifies `photo.jpg`, to be run in the student's folder.

    Args:
        timm_folder: `timm_folder.TimmFolder.summary`.
    """
    made = _by_name() if timm_folder["loads_by_name"] else _by_hand(timm_folder)
    return f"""{made}
model.eval()
photo = ImageOps.exif_transpose(Image.open("photo.jpg")).convert("RGBA")
photo = Image.alpha_composite(Image.new("RGBA", photo.size, "white"), photo).convert("RGB")
photo = transform(photo)
with torch.inference_mode():
    logits = model(photo[None])
print(class_names[int(logits.argmax())])
"""


def _by_name() -> str:
    return """import timm
import torch
from PIL import Image, ImageOps

model = timm.create_model("local-dir:.", pretrained=True)
class_names = model.pretrained_cfg["label_names"]
transform = timm.data.create_transform(**timm.data.resolve_data_config(model=model))"""


def _by_hand(timm_folder: Mapping[str, Any]) -> str:
    size = timm_folder["image_size"]
    arguments = "".join(
        f", {key}={_literal(value)}" for key, value in timm_folder["model_args"].items()
    )
    strides = "".join(
        f'model.get_submodule("{path}").stride = {tuple(stride)}\n'
        for path, stride in timm_folder["strides"].items()
    )
    return f"""import json
from pathlib import Path

import timm
import torch
from PIL import Image, ImageOps
from safetensors.torch import load_file

model = timm.create_model("{timm_folder["architecture"]}"{arguments})
{strides}model.load_state_dict(load_file("model.safetensors"))
class_names = json.loads(Path("config.json").read_text(encoding="utf-8"))["label_names"]
transform = timm.data.create_transform(
    input_size=(3, {size}, {size}),
    interpolation="bicubic",
    mean={tuple(timm_folder["mean"])},
    std={tuple(timm_folder["std"])},
    crop_pct=1.0,
)"""


def _literal(value: Any) -> str:
    """Return a value in Python, texts in double quotes as everywhere in the card's lines."""
    return json.dumps(value) if isinstance(value, str) else repr(value)
