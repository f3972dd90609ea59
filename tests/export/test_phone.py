"""The student for LiteRT; most of it where docs/phone.md's environment is."""

import re

import numpy as np
import pytest
from PIL import Image

from distillation.base.workspace import Workspace
from distillation.export import phone
from distillation.export.errors import ExportError
from distillation.export.sessions import INT8_FILE, ONNX_FILE
from distillation.sources.decode import read_image


def test_missing_packages_are_named_before_anything_is_read(monkeypatch, tmp_path):
    monkeypatch.setattr(phone, "_PACKAGES", ("numpy", "no_such_package"))
    with pytest.raises(ExportError, match=r"^no_such_package: not installed in .*docs/phone\.md"):
        phone.main(Workspace(root=tmp_path))


@pytest.mark.full
def test_the_files_predict_what_onnx_runtime_predicts(
    exported, digits_folder, repository, tmp_path, monkeypatch, capsys
):
    for name in phone._PACKAGES:
        pytest.importorskip(name)
    workspace = Workspace(root=tmp_path)
    workspace.student.parent.mkdir()
    workspace.student.symlink_to(exported.directory)
    workspace.prepared.parent.mkdir()
    workspace.prepared.symlink_to(digits_folder)
    phone.main(workspace)

    printed = capsys.readouterr().out
    row = r"^\| \S+/(student\S+) \| ([\d,]+) \| (\d+) \| (\S+) "
    found = {
        name: (int(size.replace(",", "")), int(same), float(furthest))
        for name, size, same, furthest in re.findall(row, printed, re.MULTILINE)
    }
    assert list(found) == [ONNX_FILE, INT8_FILE, phone.LITERT_FILE, phone.SMALL_FILE]
    assert found[phone.LITERT_FILE][1] == 359
    assert found[phone.LITERT_FILE][2] < 1e-4
    assert found[phone.SMALL_FILE][0] < 0.5 * found[phone.LITERT_FILE][0]
    folder = tmp_path / "models" / "phone"
    assert (folder / "labels.txt").read_text(encoding="utf-8").split() == list("0123456789")
    model = phone.LiteRTModel(folder / phone.SMALL_FILE)
    pixels = np.random.default_rng(0).integers(0, 256, (50, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.jpg")
    logits = model.predict_logits(read_image(tmp_path / "photo.jpg", 16)[None])
    assert logits.shape == (1, 10)

    page = (repository / "docs" / "phone.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    assert capsys.readouterr().out == f"{logits.argmax()}\n"
