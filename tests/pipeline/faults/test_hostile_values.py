"""Parameters, options, arguments and results made to do harm: refused in a sentence, never run."""

import json
import os
import re
import shutil
import subprocess
import sys

import pytest
import yaml

from distillation.base.params import PARAM_NAMES, load_params
from distillation.cli import predict
from distillation.cli.options import params_from, parse_options
from distillation.compare import main as compare
from distillation.export.onnx_file import export_onnx
from distillation.models.creation import create_classifier
from distillation.sources.decode import IMAGE_FORMATS
from tests.helpers.hostile import ends_well, make_picture, mutate

SIZE = 16

pytestmark = pytest.mark.usefixtures("in_time")


# Parameters

VALUES = [
    None, True, -1, 0, 1e300, float("nan"), float("inf"), -0.0, 2**70, "", " ", "x\0y", "../..",
    "$(touch X)", "; touch X", "\x1b[31m", "ä" * 5000, [], [[]], [None], [-1], [0, 0], {},
    {"a": {}}, {"": 1}, "1e3", "0x10", "yes", "~", "!!python/object/apply:os.system [x]",
    [1] * 1000,
]  # fmt: skip


@pytest.mark.parametrize("number", range(60))
def test_a_value_of_another_kind(number, tmp_path, committed_values, attempt, draw):
    key, value = draw.choice(sorted(PARAM_NAMES)), draw.choice(VALUES)
    attempt("hostile parameters", f"{key}: {str(value)[:40]!r}")
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump({**committed_values, key: value}), encoding="utf-8")
    ends_well(lambda: load_params(path), key.split(".")[0], path)


TEXTS = {
    "runs python": b"alpha: !!python/object/apply:os.system ['touch X']\n",
    "makes an object": b"alpha: !!python/object/new:os.system {}\n",
    "names a module": b"alpha: !!python/module:os\n",
    "bomb of aliases": b"a: &a [x, x]\n"
    + b"".join(
        b"%c: &%c [%s]\n" % (c, c, b", ".join([b"*%c" % (c - 1)] * 9)) for c in b"bcdefghijk"
    ),
    "contains itself": b"alpha: &a [*a]\n",
    "merges itself": b"a: &a\n  <<: *a\n",
    "nests deeply": b"alpha: " + b"[" * 50_000,
    "a key twice": b"alpha: 1\nalpha: 2\n",
    "a list": b"- alpha\n",
    "a word": b"alpha\n",
    "nothing": b"",
    "zeros": bytes(1000),
    "not UTF-8": b"alpha: \xff\xfe\n",
    "UTF-16": "alpha: 1\n".encode("utf-16"),
    "a tab": b"alpha:\t1\n\talpha: 2\n",
    "two documents": b"alpha: 1\n---\nalpha: 2\n",
    "megabytes": b"alpha: " + b"x" * 5_000_000,
    "numbers of a million digits": b"alpha: " + b"9" * 1_000_000,
    "keys that are lists": b"? [a, b]\n: 1\n",
    "dates and sets": b"alpha: 2020-01-01\nbeta: !!set {a}\n",
}


@pytest.mark.parametrize("name", TEXTS)
def test_a_parameter_file(name, tmp_path, attempt, monkeypatch):
    attempt("hostile parameters", name)
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "params.yaml"
    path.write_bytes(TEXTS[name])
    assert not ends_well(lambda: load_params(path), path, "alpha")
    assert [one.name for one in tmp_path.iterdir()] == ["params.yaml"]


@pytest.mark.parametrize("number", range(20))
def test_an_option(number, attempt, draw, repository, monkeypatch, capsys):
    monkeypatch.chdir(repository)
    key = draw.choice(sorted(PARAM_NAMES)).replace("_", "-")
    value = str(draw.choice(VALUES))[:200].replace("\0", "")
    attempt("hostile options", f"--{key} {value[:40]!r}")

    def parse():
        try:
            params_from(parse_options([f"--{key}={value}"]))
        except SystemExit:
            assert key in capsys.readouterr().err

    ends_well(parse, key.replace("-", "_"))


# predict


@pytest.fixture(scope="module")
def model_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "tiny.onnx"
    model = create_classifier("test_resnet", num_classes=3, image_size=SIZE, seed=1)
    metadata = {"class_names": json.dumps(["a", "b", "c"]), "image_size": str(SIZE)}
    export_onnx(model, path, image_size=SIZE, metadata=metadata)
    return path


def predict_with(model, *arguments, capsys):
    status = predict.main([*map(str, arguments), "--json", "--model", str(model)])
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    assert "\x1b" not in captured.out + captured.err
    for line in captured.out.splitlines():
        json.loads(line, parse_constant=pytest.fail)
    return status, captured


@pytest.mark.parametrize("number", range(12))
def test_a_model_changed_at_random(number, model_path, tmp_path, attempt, draw, capsys):
    kind, content = mutate(model_path.read_bytes(), draw)
    attempt("tampered models for predict", kind)
    model, image = tmp_path / "model.onnx", tmp_path / "image.png"
    model.write_bytes(content)
    image.write_bytes(make_picture())
    status, captured = predict_with(model, image, capsys=capsys)
    assert status == 1, captured.out
    assert str(model) in captured.err


def make_pipe(path):
    os.mkfifo(path)


def make_loop(path):
    path.symlink_to(path)


def make_folder_loop(path):
    path.mkdir()
    (path / "again").symlink_to(path)
    (path / "image.png").write_bytes(make_picture())


ARGUMENTS = {
    "a pipe": make_pipe,
    "a link to nowhere": lambda path: path.symlink_to("nowhere"),
    "a link to itself": make_loop,
    "a folder in itself": make_folder_loop,
    "an endless device": lambda path: path.symlink_to("/dev/zero"),
    "memory": lambda path: path.symlink_to("/proc/self/mem"),
    "nothing": lambda path: path.touch(),
    "text": lambda path: path.write_text("no picture"),
    "a hole of terabytes": lambda path: (path.touch(), os.truncate(path, 2**42)),
    "an empty folder": lambda path: path.mkdir(),
}
NAMES = [
    "a.png",
    "\x1b[31mred.png",
    "two\nlines.png",
    os.fsdecode(b"\xff\xfe.png"),
    "-rf",
    "{0}.png",
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ARGUMENTS)
def test_an_image_argument(kind, name, model_path, tmp_path, attempt, capsys):
    attempt("hostile arguments of predict", f"{kind} called {name!r}")
    path = tmp_path / name
    ARGUMENTS[kind](path)
    status, captured = predict_with(model_path, path, capsys=capsys)
    assert status == 1, captured.err
    assert len(captured.err) < 3000


@pytest.mark.parametrize("number", range(3))
@pytest.mark.parametrize("format_", sorted(IMAGE_FORMATS))
def test_a_picture_changed_at_random(number, format_, model_path, tmp_path, attempt, draw, capsys):
    content = make_picture(format_, mode="L" if format_ == "PPM" else "RGB")
    kind, content = mutate(content, draw)
    attempt("damaged pictures", f"{format_} for predict: {kind}")
    path = tmp_path / "image.png"
    path.write_bytes(content)
    status, captured = predict_with(model_path, path, capsys=capsys)
    (answer,) = map(json.loads, captured.out.splitlines())
    assert ("class" in answer, "error" in answer) == (status == 0, status == 1)


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_a_reader_that_stops_reading(form, model_path, tmp_path, attempt):
    attempt("hostile arguments of predict", f"| head -1 {form}")
    for number in range(200):
        (tmp_path / f"{number}.png").write_bytes(make_picture(seed=number))
    program = [sys.executable, "-m", "distillation", "predict", *form, "--model", str(model_path)]
    told = tmp_path / "told.txt"
    with (
        told.open("w") as err,
        subprocess.Popen(
            [*program, str(tmp_path)], stdout=subprocess.PIPE, stderr=err, text=True
        ) as running,
    ):
        assert running.stdout.readline()
        running.stdout.close()
        assert running.wait(timeout=60) != 0
    assert "Traceback" not in told.read_text(encoding="utf-8")
    assert "BrokenPipe" not in told.read_text(encoding="utf-8")


# compare

RESULTS = {
    "nests deeply": b"[" * 200_000,
    "not a number": b'{"data": NaN, "seeds": [{"seed": NaN}]}',
    "infinite": b'{"data": "x", "seeds": [{"seed": 1e999}]}',
    "other types": b'{"data": [], "seeds": {"a": 1}}',
    "no seeds": b'{"data": "x", "seeds": []}',
    "numbers of a million digits": b'{"data": "x", "seeds": [{"seed": ' + b"9" * 1_000_000 + b"}]}",
    "binary": bytes(range(256)),
    "escape sequences": json.dumps({"data": "\x1b[31m", "seeds": [{"\x1b[2J": 1}]}).encode(),
    "half": b'{"data": "x", "seeds": [',
    "nothing": b"",
}


@pytest.mark.parametrize("name", RESULTS)
def test_results_to_compare(name, tmp_path, attempt, capsys):
    attempt("hostile results for compare", name)
    folder = tmp_path / "run" / "metrics"
    (folder / "seeds").mkdir(parents=True)
    for method in ("control", "exp1"):
        (folder / "seeds" / f"{method}.json").write_bytes(RESULTS[name])
    (tmp_path / "results.json").write_bytes(RESULTS[name])
    for argument in (folder, tmp_path / "results.json"):
        status = compare([str(argument)])
        captured = capsys.readouterr()
        assert status == 1
        assert captured.err.startswith("error: ")
        assert "Traceback" not in captured.err
        assert "\x1b" not in captured.err


LOCKS = {
    "runs python": b"schema: !!python/object/apply:os.system ['touch X']\n",
    "bomb of aliases": TEXTS["bomb of aliases"],
    "contains itself": b"stages: &a [*a]\n",
    "nests deeply": b"stages: " + b"[" * 50_000,
    "a list": b"- stages\n",
    "a word": b"stages\n",
    "stages are a list": b"stages: [1, 2]\n",
    "a stage is a word": b"stages: {train_control: x}\n",
    "outs are words": b"stages: {train_control: {outs: x, deps: 1, params: []}}\n",
    "paths are numbers": b"stages: {train_control: {outs: [{path: 1, md5: {}}]}}\n",
    "zeros": bytes(1000),
    "not UTF-8": b"stages: \xff\xfe\n",
    "escape sequences": b'stages: {"\\e[31m": "\\e[2J"}\n',
}


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_file_beside_results(name, tmp_path, pipeline, attempt, capsys, monkeypatch):
    attempt("hostile results for compare", f"dvc.lock: {name}")
    root = tmp_path / "run"
    shutil.copytree(pipeline.root / "metrics", root / "metrics")
    for file in ("params.yaml", "dvc.yaml"):
        shutil.copy(pipeline.root / file, root)
    (root / "dvc.lock").write_bytes(LOCKS[name])
    monkeypatch.chdir(tmp_path)
    status = compare([str(root)])
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    assert "\x1b" not in captured.out + captured.err
    assert status == 0 or str(root) in captured.err
    assert not (tmp_path / "X").exists()


# Values that reach a shell or a path, with real dvc

NAMED = {
    "methods": ["$(touch X)"],
    "teacher": "resnet18; touch X",
    "student": "`touch X`",
    "dataset": "$(touch X)",
    "optimizer": "adamw && touch X",
    "student_checkpoint": "| touch X",
    "export_method": "exp1; touch X",
}


@pytest.mark.parametrize("key", NAMED)
def test_a_value_in_a_repro(key, fresh_work_tree, tmp_path, attempt):
    attempt("hostile names in dvc repro", f"{key}: {NAMED[key]}")
    work_tree = fresh_work_tree.copy(tmp_path / "work")
    path = work_tree.root / "params.yaml"
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    path.write_text(yaml.safe_dump({**values, key: NAMED[key]}), encoding="utf-8")
    output = work_tree.dvc("repro", status=None)
    assert re.search(
        rf"error: {key}: got |for {key} adamw && touch X|is ignored by .dvcignore", output
    ), output
    assert "Traceback" not in output
    assert not list(tmp_path.rglob("X"))


@pytest.mark.parametrize("key", NAMED)
def test_a_value_in_an_experiment(key, fresh_work_tree, tmp_path, attempt):
    attempt("hostile names in dvc exp run", f"{key}: {NAMED[key]}")
    work_tree = fresh_work_tree.copy(tmp_path / "work")
    output = work_tree.dvc("exp", "run", "-S", f"{key}={json.dumps(NAMED[key])}", status=None)
    assert re.search(
        rf"error: {key}: got |for {key} adamw && touch X|is ignored by .dvcignore|grammar", output
    ), output
    assert "Traceback" not in output
    assert not list(tmp_path.rglob("X"))
