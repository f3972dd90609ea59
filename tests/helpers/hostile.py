"""Hostile input: changed at random, and what a program may do with it."""

import io

import numpy as np
from PIL import Image

from distillation.base.errors import DistillationError


def ends_well(call, *named):
    """Return whether a call ended well; if not, it was refused in a sentence that names one."""
    try:
        call()
    except DistillationError as error:
        message = str(error)
        assert message
        assert "\x1b" not in message
        assert "\0" not in message
        assert not named or any(str(name) in message for name in named), message
        return False
    return True


def mutate(content, draw):
    """Return content with a few bits flipped, a part cut, repeated, or overwritten."""
    data = bytearray(content)
    place = draw.randrange(len(data))
    kind = draw.choice(("flip", "cut", "repeat", "overwrite", "tail"))
    if kind == "flip":
        for _ in range(draw.randint(1, 8)):
            data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    elif kind == "cut":
        del data[place:]
    elif kind == "repeat":
        data[place:place] = data[place : place + draw.randint(1, 600)]
    elif kind == "overwrite":
        length = draw.randint(1, 64)
        data[place : place + length] = draw.randbytes(length)
    else:
        data += draw.randbytes(draw.randint(1, 2000))
    return kind, bytes(data)


def make_picture(format_="PNG", seed=0, mode="RGB"):
    pixels = np.random.default_rng(seed).integers(0, 256, (12, 10, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, format_)
    return file.getvalue()
