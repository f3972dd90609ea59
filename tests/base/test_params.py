import errno
import json
import os
import re
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from distillation.base.errors import DistillationError
from distillation.base.methods import further_methods
from distillation.base.param_types import Section
from distillation.base.params import (
    PARAM_NAMES,
    PATH_KEYS,
    ParamError,
    Params,
    check_paths,
    describe,
    is_pretrained,
    load_params,
    make_params,
    replace,
    to_dict,
)
from distillation.base.yaml_text import read_yaml

SEEDS = "a list of different whole numbers from 0 to 2,147,483,647, at least one of them"
FURTHER = ", ".join(further_methods())
METHODS = f"a list, empty or of different names among {FURTHER}"
WEIGHTS = f"a mapping of methods ({FURTHER}) to numbers of at least 0"
AREA = "a list [smallest, largest], both above 0 and at most 1"
ASPECT = "a list [smallest, largest], both at least 0.1 and at most 10"
OPTIONS = "a mapping of keyword arguments to values"
OPTION = "a finite number, a text, true, false, null or a list of these"
NUMBER = "a number, at least 0 and at most 1,000,000,000"
COUNT = "a whole number, at least 0 and at most 100,000"
TEXT = "a text that is not empty"
WRITTEN = " (written as 10, 0.5 or 1e-3: no quotes, no leading 0)"


@pytest.fixture(scope="module")
def params_file(repository):
    return repository / "params.yaml"


@pytest.fixture(scope="module")
def make(params_file):
    """Build parameters from the committed ones, with some values changed."""
    defaults = read_yaml(params_file)
    return lambda **changes: make_params({**defaults, **changes})


@pytest.fixture
def refusal(make):
    """Return what is said to wrong values."""

    def refuse(**changes):
        with pytest.raises(ParamError) as caught:
            make(**changes)
        return str(caught.value)

    return refuse


def write_file(path, params_file, **lines):
    """Write the committed file with some values in other words."""
    text = params_file.read_text(encoding="utf-8")
    for name, written in lines.items():
        text, changed = re.subn(rf"(?m)^{name}: .*", f"{name}: {written}", text)
        assert changed == 1
    path.write_text(text, encoding="utf-8")
    return path


# The repository's file


def test_the_committed_file_holds_each_parameter_once_in_its_section(params_file):
    text = params_file.read_text(encoding="utf-8")
    assert sorted(re.findall(r"(?m)^(\w+):", text)) == sorted(PARAM_NAMES)
    first_of_section = [
        name
        for name, field in Params.model_fields.items()
        if any(isinstance(mark, Section) for mark in field.metadata)
    ]
    assert re.findall(r"# --- .*\n(\w+):", text) == first_of_section
    assert set(load_params(params_file).method_weights) == set(further_methods())


def test_every_parameter_has_a_description():
    assert all(field.description for field in Params.model_fields.values())


# Values


@pytest.mark.parametrize(
    ("names", "lowest", "highest", "too_low", "too_high"),
    [
        ("image_size", 8, 1024, 7, 1025),
        ("labeled_fraction", 1e-9, 1, 0, 1.001),
        ("validation_fraction test_fraction", 1e-9, 0.5, 0, 0.501),
        ("seed", 0, 2**31 - 1, -1, 2**31),
        ("prepared_size", 32, 32, 7, 2049),
        ("student_stem_stride", 1, 8, 0, 9),
        ("teacher_epochs epochs", 0, 100_000, -1, int("9" * 30)),
        ("patience_epochs", 1, 100_000, 0, 100_001),
        ("teacher_batch_size batch_size", 1, 10**6, 0, 10**6 + 1),
        ("num_views", 1, 10_000, 0, 10**9),
        ("teacher_learning_rate learning_rate temperature", 1e-12, 1e9, 0, 1.1e9),
        ("teacher_weight_decay weight_decay teacher_cache_gb", 0, 1e9, -1e-9, 1.1e9),
        ("label_weight alpha feature_weight", 0, 1e9, -1e-9, 1.1e9),
        ("ema_decay label_smoothing warmup_fraction", 0, 0.9999, -0.1, 1),
        ("color_jitter", 0, 1, -0.1, 1.1),
        ("mixup cutmix", 0, 100, -0.1, 100.1),
        ("crop_padding", 0, 31, -1, 1024),
    ],
)
def test_the_bounds_belong_to_the_range_and_what_is_beyond_is_refused(
    make, refusal, names, lowest, highest, too_low, too_high
):
    for name in names.split():
        for value in (lowest, highest):
            assert getattr(make(**{"crop_padding": 0, name: value}), name) == value
        for value, words in ((too_low, "at least|above"), (too_high, "at most|below")):
            got = re.escape(f"{name}: got {value}; must be ")
            assert re.fullmatch(rf"{got}({words}) [\d,.]+", refusal(**{name: value}))


def test_every_number_has_bounds():
    for name in PARAM_NAMES:
        if "number, " in (words := describe(name)):
            assert re.search("at least|above", words)
            assert re.search("at most|below", words)
        else:
            assert "number" not in words or name in ("seeds", "control_epochs", "method_weights")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("alpha", -1, "alpha: got -1; must be at least 0"),
        ("alpha", True, f"alpha: got true; must be {NUMBER}"),
        ("alpha", None, f"alpha: got null; must be {NUMBER}"),
        ("alpha", "much", f"alpha: got 'much'; must be {NUMBER}{WRITTEN}"),
        ("alpha", float("nan"), f"alpha: got nan; must be {NUMBER}"),
        ("alpha", float("inf"), f"alpha: got inf; must be {NUMBER}"),
        ("alpha", 10**400, f"alpha: got 1{'0' * 59}… (shortened); must be {NUMBER}"),
        ("epochs", True, f"epochs: got true; must be {COUNT}"),
        ("epochs", 3.0, f"epochs: got 3.0; must be {COUNT}"),
        ("epochs", "010", f"epochs: got '010'; must be {COUNT}{WRITTEN}"),
        ("student_stem_stride", 1.5, "student_stem_stride: got 1.5; must be a whole number, at "
         "least 1 and at most 8, or null"),
        ("pretrained", 1, "pretrained: got 1; must be true or false"),
        ("dataset", " ", f"dataset: got ' '; must be {TEXT}"),
        ("dataset", None, f"dataset: got null; must be {TEXT}"),
        ("teacher", 5, f"teacher: got 5; must be {TEXT}"),
        ("teacher_checkpoint", "", f"teacher_checkpoint: got ''; must be {TEXT}, or null"),
        ("precision", "fp16", "precision: got 'fp16'; must be auto, fp32 or bf16"),
        ("precision", True, "precision: got true; must be auto, fp32 or bf16"),
        ("compile", 1, "compile: got 1; must be auto, true or false"),
        ("seeds", [], f"seeds: got []; must be {SEEDS}"),
        ("seeds", [0, 0], f"seeds: got [0, 0]; must be {SEEDS}"),
        ("seeds", [0, -1, True], f"seeds: got [0, -1, True]; must be {SEEDS}"),
        ("seeds", {"a": 1}, f"seeds: got {{'a': 1}}; must be {SEEDS}"),
        ("methods", ["dkd", "exp1"], f"methods: got ['dkd', 'exp1']; must be {METHODS}"),
        ("methods", ["dkd", "dkd"], f"methods: got ['dkd', 'dkd']; must be {METHODS}"),
        ("method_weights", [], f"method_weights: got []; must be {WEIGHTS}"),
        ("method_weights", {"exp1": 1}, f"method_weights: got 'exp1'; must be {WEIGHTS}"),
        ("method_weights", {"dkd": -1}, "method_weights.dkd: got -1; must be at least 0"),
        ("method_weights", {"dkd": None}, f"method_weights.dkd: got null; must be {NUMBER}"),
        ("optimizer_options", 3, f"optimizer_options: got 3; must be {OPTIONS}, or null"),
        ("optimizer_options", {1: 2}, f"optimizer_options: got 1; must be {OPTIONS}, or null"),
        ("optimizer_options", {"eps": float("nan")}, f"optimizer_options.eps: got nan; must be "
         f"{OPTION}"),
        ("teacher_optimizer_options", {"betas": [0.9, {}]}, "teacher_optimizer_options.betas: got "
         f"[0.9, {{}}]; must be {OPTION}"),
        ("export_method", "dkd", "export_method: got 'dkd'; must be control, exp1, exp2, exp3, a "
         "method that methods names, or null"),
        ("augmentation", "randaugment", "augmentation: got 'randaugment'; must be crop or "
         "resized_crop"),
        ("interpolation", "nearest", "interpolation: got 'nearest'; must be bilinear or bicubic"),
        ("resized_crop_area", [0.5, 0.4], f"resized_crop_area: got [0.5, 0.4]; must be {AREA}"),
        ("resized_crop_area", [0, 1], f"resized_crop_area: got [0, 1]; must be {AREA}"),
        ("resized_crop_area", [0.5, 1.1], f"resized_crop_area: got [0.5, 1.1]; must be {AREA}"),
        ("resized_crop_area", 0.5, f"resized_crop_area: got 0.5; must be {AREA}"),
        ("resized_crop_area", [], f"resized_crop_area: got []; must be {AREA}"),
        ("resized_crop_area", [0.1, 0.2, 0.3], f"resized_crop_area: got [0.1, 0.2, 0.3]; must be "
         f"{AREA}"),
        ("resized_crop_area", None, f"resized_crop_area: got null; must be {AREA}"),
        ("resized_crop_aspect", [2, 1], f"resized_crop_aspect: got [2, 1]; must be {ASPECT}"),
        ("resized_crop_aspect", [0.01, 1], f"resized_crop_aspect: got [0.01, 1]; must be {ASPECT}"),
        ("resized_crop_aspect", [1, 11], f"resized_crop_aspect: got [1, 11]; must be {ASPECT}"),
        ("mixup", True, "mixup: got true; must be a number, at least 0 and at most 100"),
        ("cutmix", -1, "cutmix: got -1; must be at least 0"),
        ("color_jitter", 2, "color_jitter: got 2; must be at most 1"),
        ("crop_padding", 32, "crop_padding: got 32; must be below image_size (32)"),
        ("prepared_size", 31, "prepared_size: got 31; must be at least image_size (32), or null"),
        ("prepared_size", 64, "augmentation: got crop; must be resized_crop where prepared_size "
         "(64) is larger than image_size (32)"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_named_with_what_is_allowed(refusal, name, value, message):
    assert refusal(**{name: value}) == message


def test_a_number_that_python_does_not_print_is_told_too(refusal):
    assert refusal(alpha=10**5000) == (
        f"alpha: got a whole number of thousands of digits; must be {NUMBER}"
    )


def test_values_come_in_their_declared_type(make):
    params = make(alpha=1, weight_decay="1e-3", seeds=3, methods="dkd", compile=True)
    assert (params.alpha, type(params.alpha)) == (1.0, float)
    assert params.weight_decay == 0.001  # what a reader of YAML 1.1 makes of 1e-3
    assert (params.seeds, params.methods, params.compile) == ((3,), ("dkd",), "true")
    assert make(compile=False).compile == "false"
    assert make(seeds=[2, 0, 1]).seeds == (2, 0, 1)
    weights = make(method_weights={"dkd": 2, "dist": "1e-3"}).method_weights
    assert weights == {"dkd": 2.0, "dist": 0.001}
    assert type(weights["dkd"]) is float
    options = {"eps": "1e-8", "betas": [0.9, "95e-2"], "amsgrad": True, "clip": None, "mode": "a"}
    assert make(optimizer_options=options).optimizer_options == {
        "eps": 1e-8, "betas": [0.9, 0.95], "amsgrad": True, "clip": None, "mode": "a",
    }  # fmt: skip


@pytest.mark.parametrize("role", ["teacher_", ""])
def test_only_muon_has_a_rate_by_itself(make, refusal, role):
    assert refusal(**{f"{role}optimizer": "adamw"}) == (
        f"{role}learning_rate: got null; must be a number for {role}optimizer adamw; null is the "
        "rate of muon, nmuon, adamuon and nadamuon"
    )
    assert make(**{f"{role}optimizer": "adamw", f"{role}learning_rate": 2e-3})
    assert make(**{f"{role}optimizer": "lookahead_muon"})


def test_null_is_a_value_where_the_words_say_so(make):
    optional = [name for name in PARAM_NAMES if describe(name).endswith(", or null")]
    assert optional == [
        "prepared_size", "teacher_checkpoint", "student_checkpoint", "teacher_class_names",
        "teacher_pretrained", "student_pretrained", "teacher_stem_stride", "student_stem_stride",
        "teacher_learning_rate", "teacher_weight_decay", "teacher_optimizer_options",
        "learning_rate", "weight_decay", "optimizer_options", "patience_epochs", "export_method",
    ]  # fmt: skip
    for name in optional:
        assert getattr(make(**{name: None}), name) is None


def test_regions_are_cut_out_of_larger_images(make):
    assert make(prepared_size=2048, augmentation="resized_crop").prepared_size == 2048


def test_a_method_that_runs_may_be_exported(make):
    assert make(export_method="exp3").export_method == "exp3"
    assert make(export_method="dkd", methods=["dkd"]).export_method == "dkd"


def test_a_method_without_a_weight_is_refused(make, refusal):
    weights = dict(make().method_weights)
    del weights["dkd"]
    assert make(method_weights=weights, methods=["dist"]).methods == ("dist",)
    message = "method_weights: missing dkd; allowed: a number of at least 0"
    assert refusal(method_weights=weights, methods=["dist", "dkd"]) == message


def test_one_of_the_two_weights_of_an_objective_is_enough(make, refusal):
    assert make(label_weight=0, alpha=0.1).label_weight == 0
    assert make(label_weight=0.1, alpha=0).alpha == 0
    assert refusal(label_weight=0, alpha=0).startswith(
        "label_weight, alpha: got 0 and 0; one of them must be above 0"
    )


# Several mistakes


def test_all_mistakes_are_named_one_per_line(make, params_file):
    values = {**to_dict(make()), "alpha": -1, "alfa": 0.5, "method_weights": {"dkd": -1, "x": 1}}
    del values["epochs"], values["student"]
    with pytest.raises(ParamError) as caught:
        make_params(values, source="here")
    assert str(caught.value).splitlines() == [
        "here: unknown parameter 'alfa' = 0.5; did you mean alpha?",
        "here: missing parameter student, epochs",
        "alpha: got -1; must be at least 0",
        "method_weights.dkd: got -1; must be at least 0",
        f"method_weights: got 'x'; must be {WEIGHTS}",
    ]


def test_rules_between_parameters_are_named_together(refusal):
    lines = refusal(crop_padding=32, label_weight=0, alpha=0, export_method="dkd").splitlines()
    assert [line.partition(":")[0] for line in lines] == [
        "export_method", "crop_padding", "label_weight, alpha",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("key", "shown", "hint"),
    [
        ("temprature", "'temprature'", "did you mean temperature?"),
        ("batchsize", "'batchsize'", "did you mean batch_size or teacher_batch_size?"),
        ("zzz", "'zzz'", "remove it"),
        (7, "7", "remove it"),
    ],
)
def test_an_unknown_key_is_named_with_the_nearest_names(make, key, shown, hint):
    with pytest.raises(ParamError) as caught:
        make_params({**to_dict(make()), key: 0.5})
    assert str(caught.value) == f"parameters: unknown parameter {shown} = 0.5; {hint}"


def test_of_very_many_unknown_keys_the_first_are_named(make):
    unknown = {f"zz{number}": 1 for number in range(1000)}
    with pytest.raises(ParamError) as caught:
        make_params({**to_dict(make()), **unknown})
    *named, rest = str(caught.value).splitlines()
    assert len(named) == 10
    assert rest == "parameters: 990 more unknown parameters"


# As an object


def test_parameters_do_not_change_and_are_checked_when_replaced(make):
    params = make()
    with pytest.raises(ValidationError, match="frozen"):
        params.alpha = 0.1
    assert replace(params, epochs=3).epochs == 3
    assert replace(params) == params
    with pytest.raises(ParamError, match=r"^epochs: got -1; must be at least 0$"):
        replace(params, epochs=-1)


def test_the_plain_values_make_the_same_parameters_through_json_and_yaml(make):
    params = make(seeds=[1, 2], methods=["dkd"], compile=True)
    values = to_dict(params)
    assert tuple(values) == PARAM_NAMES
    assert make_params(json.loads(json.dumps(values))) == params
    assert make_params(yaml.safe_load(yaml.safe_dump(values))) == params


def test_the_error_is_one_that_a_program_shows_without_a_traceback():
    assert issubclass(ParamError, DistillationError)


# Files


def test_a_file_is_read_as_it_is_written(tmp_path, params_file):
    path = write_file(
        tmp_path / "a.yaml", params_file, alpha="1e-3", seeds="3", compile="on", student="010"
    )
    params = load_params(path)
    assert (params.alpha, params.seeds, params.compile) == (0.001, (3,), "true")
    assert params.student == "010"


def test_what_is_no_plain_decimal_is_no_number(tmp_path, params_file):
    path = write_file(tmp_path / "a.yaml", params_file, epochs="010", seeds="[010]", alpha="1:30")
    with pytest.raises(ParamError) as caught:
        load_params(path)
    assert str(caught.value).splitlines() == [
        f"epochs: got '010'; must be {COUNT}{WRITTEN}",
        f"seeds: got ['010']; must be {SEEDS}{WRITTEN}",
        f"alpha: got '1:30'; must be {NUMBER}{WRITTEN}",
    ]


def test_overrides_take_the_place_of_values_in_the_file(tmp_path, params_file):
    path = write_file(tmp_path / "a.yaml", params_file, epochs="-1")
    params = load_params(path, epochs=2, dataset="digits", student_stem_stride=None)
    assert (params.epochs, params.dataset, params.student_stem_stride) == (2, "digits", None)
    with pytest.raises(ParamError, match=r"^epochs: got -1; "):
        load_params(path)
    with pytest.raises(ParamError, match=rf"^{path}: unknown parameter 'alfa' = 0.5; did you mean"):
        load_params(path, epochs=2, alfa=0.5)


def test_the_file_in_the_working_folder_is_the_default(tmp_path, params_file, monkeypatch):
    write_file(tmp_path / "params.yaml", params_file, seed="77")
    monkeypatch.chdir(tmp_path)
    assert load_params().seed == 77


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "got null; must be parameters, as key: value"),
        ("- a", "got ['a']; must be parameters, as key: value"),
        ("a: [", "not valid YAML: line 1, column 5: "),
        ("alpha: 0.5", "missing parameter dataset, "),
        (None, "cannot be read (No such file or directory)"),
    ],
    ids=["empty", "list", "open", "missing", "no file"],
)
def test_a_file_that_holds_something_else_is_named(tmp_path, content, message):
    path = tmp_path / "a.yaml"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    with pytest.raises(ParamError, match=rf"^{re.escape(f'{path}: {message}')}.*\Z"):
        load_params(path)


# Paths


def test_a_path_leads_to_something(make, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    params = make(**dict.fromkeys(PATH_KEYS, "gone"))
    with pytest.raises(ParamError) as caught:
        check_paths(params)
    assert str(caught.value).splitlines() == [
        "dataset: got 'gone'; must be cifar10, digits or the path of something that exists",
        "teacher_checkpoint: got 'gone'; must be the path of something that exists",
        "student_checkpoint: got 'gone'; must be the path of something that exists",
        "teacher_class_names: got 'gone'; must be the path of something that exists",
    ]
    (tmp_path / "gone").touch()
    assert check_paths(params) == params


@pytest.mark.parametrize("key", ["teacher", "student_checkpoint"])
def test_a_local_folder_leads_to_something_and_a_hub_repository_is_no_path(
    make, tmp_path, monkeypatch, key
):
    monkeypatch.setenv("HOME", str(tmp_path))
    params = make(**{key: "local-dir:~/model"})
    message = rf"^{key}: got 'local-dir:~/model'; must be the path of something that exists$"
    with pytest.raises(ParamError, match=message):
        check_paths(params)
    (tmp_path / "model").mkdir()
    assert getattr(check_paths(params), key) == f"local-dir:{tmp_path / 'model'}"
    params = make(**{key: "hf-hub:user/model"})
    assert check_paths(params) == params


@pytest.mark.parametrize(
    ("both", "own", "expected"),
    [(False, None, False), (True, None, True), (True, False, False), (False, True, True)],
)
def test_a_model_may_be_pretrained_alone(make, both, own, expected):
    params = make(pretrained=both, teacher_pretrained=own)
    assert is_pretrained(params, "teacher") is expected
    assert is_pretrained(params, "student") is both


@pytest.mark.parametrize("path", ["x" * 5000, "~nobody-of-this-name/x", "a\0b"])
def test_what_can_be_no_path_is_refused_like_one_to_nothing(make, path):
    with pytest.raises(ParamError, match=r"^student_checkpoint: got .*; must be the path of"):
        check_paths(make(student_checkpoint=path))


def test_built_in_data_sets_are_no_paths_and_checkpoints_are(make, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("cifar10", "digits"):
        check_paths(make(dataset=name))
        with pytest.raises(ParamError, match=rf"^teacher_checkpoint: got '{name}'; must be the"):
            check_paths(make(teacher_checkpoint=name))


def test_a_path_may_start_with_the_home_folder(make, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    params = make(student_checkpoint="~/weights.pt")
    with pytest.raises(ParamError, match=r"^student_checkpoint: got '~/weights\.pt'; must be the"):
        check_paths(params)
    (tmp_path / "weights.pt").touch()
    assert check_paths(params).student_checkpoint == str(tmp_path / "weights.pt")


def test_a_path_that_may_not_be_looked_at_is_told_apart_from_none(monkeypatch, committed_values):
    """Root may look everywhere, so the system's refusal is made here."""

    def refuse(path, **options):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    params = make_params({**committed_values, "dataset": "/home/anna/pets"})
    monkeypatch.setattr(Path, "stat", refuse)
    with pytest.raises(ParamError, match=r"something that can be read here \(Permission denied\)$"):
        check_paths(params)
