import dataclasses
import math
import re
from pathlib import Path
from typing import get_origin, get_type_hints

import pytest
import yaml

from distillation.base.errors import DistillationError
from distillation.base.methods import further_methods
from distillation.base.params import (
    PARAM_NAMES,
    PATH_KEYS,
    ParamError,
    Params,
    check_paths,
    describe,
    load_params,
    make_params,
)

PARAMS_FILE = Path(__file__).parents[1] / "params.yaml"
DEFAULTS = yaml.safe_load(PARAMS_FILE.read_text(encoding="utf-8"))
TYPES = get_type_hints(Params)

UNIT_OPEN_LEFT = ([1e-9, 0.5, 1, 1.0], [0, -0.1, 1.0001, 2], "a number above 0 and at most 1")
UP_TO_HALF = ([1e-9, 0.25, 0.5], [0, -0.1, 0.5001, 1], "a number above 0 and at most 0.5")
POSITIVE = ([1e-12, 1, 1e6], [0, 0.0, -1, -1e-9], "a number above 0")
AT_LEAST_0 = "a number at least 0"
NOT_NEGATIVE = ([0, 0.0, 0.3, 1e6], [-1, -1e-9], AT_LEAST_0)
COUNT_FROM_0 = ([0, 1, 10**6], [-1, -100], "a whole number at least 0")
COUNT_FROM_1 = ([1, 2, 10**6], [0, -1], "a whole number at least 1")

# Accepted values, refused ones, and how the message puts it.
RANGES = {
    "image_size": ([8, 9, 1024], [7, 0, -8, 1025], "a whole number at least 8 and at most 1024"),
    "labeled_fraction": UNIT_OPEN_LEFT,
    "validation_fraction": UP_TO_HALF,
    "test_fraction": UP_TO_HALF,
    "seed": (
        [0, 1, 2**31 - 1],
        [-1, 2**31],
        "a whole number at least 0 and at most 2147483647",
    ),
    "stem_stride": ([1, 8], [0, -1, 9], "a whole number at least 1 and at most 8, or null"),
    "teacher_epochs": COUNT_FROM_0,
    "teacher_batch_size": COUNT_FROM_1,
    "teacher_learning_rate": POSITIVE,
    "teacher_weight_decay": NOT_NEGATIVE,
    "epochs": COUNT_FROM_0,
    "batch_size": COUNT_FROM_1,
    "learning_rate": POSITIVE,
    "patience_epochs": ([1, 2, 10**6], [0, -1], "a whole number at least 1, or null"),
    "ema_decay": (
        [0, 0.0, 0.5, 0.9999],
        [-1e-9, -1, 1, 1.0, 1.5],
        "a number at least 0 and below 1",
    ),
    "weight_decay": NOT_NEGATIVE,
    "warmup_fraction": ([0, 0.5, 0.999], [-0.1, 1, 1.5], "a number at least 0 and below 1"),
    "crop_padding": ([0, 1, 7], [-1], "a whole number at least 0"),
    "num_views": COUNT_FROM_1,
    "teacher_cache_gb": NOT_NEGATIVE,
    "label_weight": NOT_NEGATIVE,
    "alpha": NOT_NEGATIVE,
    "temperature": POSITIVE,
    "feature_weight": NOT_NEGATIVE,
}
CHOICES = {
    "precision": (["auto", "fp32", "bf16"], "auto, fp32 or bf16"),
    "compile": (["auto", "true", "false"], "auto, true or false"),
}
FLOATS = [name for name in PARAM_NAMES if TYPES[name] is float]
OPTIONAL = {
    "teacher_checkpoint",
    "student_checkpoint",
    "stem_stride",
    "patience_epochs",
    "export_method",
}
SEEDS = "a list of different whole numbers of at least 0, at least one of them"
METHODS = f"a list, empty or of different names among {', '.join(further_methods())}"
METHOD_WEIGHTS = "a mapping of methods to numbers of at least 0"
WORDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a text",
    tuple: SEEDS,
    dict: METHOD_WEIGHTS,
}
WRONG_TYPES = {
    int: [True, False, 3.0, "3", "three", [3], {"a": 3}],
    float: [True, False, "", "much", [0.3], {"a": 0.3}],
    bool: [0, 1, "true", "yes", 1.0, []],
    str: [0, 1.5, True, "", "  ", ["a"], {}],
    tuple: [True, 1.0, "0", "", [], [True], [0, 1.0], [0, "1"], [None], [[0]], {}, {"a": 3}],
    dict: [0, 1.5, True, "", "dkd", [], ["dkd"], [["dkd", 1.0]]],
}


def make(**changes):
    return make_params({**DEFAULTS, **changes})


def kind_of(name):
    if get_origin(TYPES[name]) in WORDS:
        return get_origin(TYPES[name])
    return next(
        kind for kind in WORDS if kind in (TYPES[name], *getattr(TYPES[name], "__args__", ()))
    )


def words_for(name):
    if name == "methods":
        return METHODS
    return CHOICES[name][1] if name in CHOICES else WORDS[kind_of(name)]


def wrong_types(name):
    if name == "methods":
        return [True, 1.0, 0, [True], ["dkd", 1], [None], [["dkd"]], {}, ["dkd", "dkd"]]
    return WRONG_TYPES[kind_of(name)]


def refusal(name, value, allowed):
    return f"^{re.escape(f'{name}: got {value!r}; allowed: {allowed}')}$"


def test_the_repositorys_file_is_valid_and_holds_each_parameter_once():
    params = load_params(PARAMS_FILE)

    assert set(DEFAULTS) == set(PARAM_NAMES)
    keys = re.findall(r"^(\w+):", PARAMS_FILE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert sorted(keys) == sorted(PARAM_NAMES)
    assert (params.dataset, params.alpha, params.temperature) == (
        DEFAULTS["dataset"], DEFAULTS["alpha"], DEFAULTS["temperature"],
    )  # fmt: skip


def test_each_number_has_its_range_in_the_table():
    numbers = {name for name in PARAM_NAMES if kind_of(name) in (int, float)}
    assert numbers == set(RANGES)


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, row in RANGES.items() for value in row[0]]
)
def test_values_within_the_range_are_accepted(name, value):
    stored = getattr(make(**{"image_size": 8, "crop_padding": 0, name: value}), name)

    assert stored == value
    assert type(stored) is kind_of(name)


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, row in RANGES.items() for value in row[1]]
)
def test_values_outside_the_range_are_refused(name, value):
    shown = float(value) if name in FLOATS else value
    with pytest.raises(ParamError, match=refusal(name, shown, RANGES[name][2])):
        make(**{name: value})


def test_methods_are_names_of_further_methods():
    assert make(methods=[]).methods == ()
    assert make(methods=["dkd", "dist"]).methods == ("dkd", "dist")
    assert make(methods="dkd").methods == ("dkd",)
    with pytest.raises(ParamError, match=refusal("methods", "exp1", ", ".join(further_methods()))):
        make(methods=["dkd", "exp1"])


def test_only_an_method_that_runs_is_exported():
    assert make(export_method="exp3").export_method == "exp3"
    assert make(export_method="dkd", methods=["dkd"]).export_method == "dkd"
    allowed = "control, exp1, exp2, exp3, a method that methods names, or null"
    for name in ("dkd", "teacher"):
        with pytest.raises(ParamError, match=refusal("export_method", name, allowed)):
            make(export_method=name)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (name, value)
        for name in PARAM_NAMES
        for value in wrong_types(name)
        # YAML's true and false are words where words are allowed.
        if not (name in CHOICES and isinstance(value, bool))
    ],
)
def test_wrong_types_are_refused(name, value):
    with pytest.raises(ParamError) as caught:
        make(**{name: value})
    message = str(caught.value)
    assert message.startswith(f"{name}: got {value!r}; allowed: {words_for(name)}")
    assert message.endswith(", or null") is (name in OPTIONAL)


@pytest.mark.parametrize(
    ("name", "word"), [(name, word) for name, row in CHOICES.items() for word in row[0]]
)
def test_a_choice_accepts_its_words(name, word):
    assert getattr(make(**{name: word}), name) == word


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("precision", "fp16"),
        ("precision", "BF16"),
        ("precision", " bf16"),
        ("precision", "true"),
        ("compile", "True"),
        ("compile", "yes"),
        ("compile", "max-autotune"),
    ],
)
def test_a_choice_refuses_other_words_and_names_its_own(name, value):
    with pytest.raises(ParamError, match=refusal(name, value, CHOICES[name][1])):
        make(**{name: value})
    assert describe(name) == CHOICES[name][1]


@pytest.mark.parametrize(("value", "word"), [(True, "true"), (False, "false")])
def test_a_boolean_is_a_word_where_words_are_allowed(value, word):
    assert make(compile=value).compile == word
    with pytest.raises(ParamError, match=refusal("precision", word, CHOICES["precision"][1])):
        make(precision=value)


@pytest.mark.parametrize(
    ("written", "stored"),
    [("true", "true"), ("false", "false"), ("auto", "auto"), ("'true'", "true"), ("off", "false")],
)
def test_compile_as_it_stands_in_a_file(tmp_path, written, stored):
    text = PARAMS_FILE.read_text(encoding="utf-8")
    text, changed = re.subn(r"(?m)^compile: \S+", f"compile: {written}", text)
    assert changed == 1
    (tmp_path / "params.yaml").write_text(text, encoding="utf-8")
    assert load_params(tmp_path / "params.yaml").compile == stored


@pytest.mark.parametrize("name", FLOATS)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, "nan", "inf", "-Infinity"])
def test_numbers_that_are_not_finite_are_refused(name, value):
    with pytest.raises(ParamError, match=rf"^{name}: got .*; allowed: a number (above|at least) 0"):
        make(**{name: value})


def test_a_whole_number_beyond_every_float_is_refused():
    with pytest.raises(ParamError, match=r"^alpha: got 1\d+; allowed: a number at least 0$"):
        make(alpha=10**400)


@pytest.mark.parametrize("name", FLOATS)
@pytest.mark.parametrize("text", ["1e-3", "2E-1", "0.25"])
def test_a_number_that_yaml_reads_as_text_is_a_number(name, text):
    stored = getattr(make(**{name: text}), name)

    assert stored == float(text)
    assert type(stored) is float


def test_yaml_1_1_reads_1e_3_as_text_and_the_file_still_loads(tmp_path):
    text = PARAMS_FILE.read_text(encoding="utf-8")
    text, changed = re.subn(r"(?m)^learning_rate: \S+", "learning_rate: 1e-3", text)
    assert changed == 1
    (tmp_path / "params.yaml").write_text(text, encoding="utf-8")

    assert isinstance(yaml.safe_load(text)["learning_rate"], str)
    assert load_params(tmp_path / "params.yaml").learning_rate == 0.001


@pytest.mark.parametrize("name", PARAM_NAMES)
def test_null_is_accepted_where_it_means_something_and_nowhere_else(name):
    if name in OPTIONAL:
        assert getattr(make(**{name: None}), name) is None
    else:
        with pytest.raises(ParamError, match=f"^{name}: got null; allowed: {words_for(name)}"):
            make(**{name: None})


@pytest.mark.parametrize("name", PARAM_NAMES)
def test_a_missing_key_is_named(name):
    values = {key: value for key, value in DEFAULTS.items() if key != name}
    with pytest.raises(ParamError, match=f"^here: missing parameter {name}$"):
        make_params(values, source="here")


def test_all_missing_keys_are_named_at_once():
    with pytest.raises(
        ParamError, match=f"^parameters: missing parameter {', '.join(PARAM_NAMES)}$"
    ):
        make_params({})


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("temprature", r"did you mean temperature\?"),
        ("learning_rat", r"did you mean learning_rate( or \w+)*\?"),
        ("batchsize", r"did you mean batch_size( or \w+)*\?"),
        ("Alpha", r"did you mean alpha\?"),
        ("zzz", f"allowed: {', '.join(PARAM_NAMES)}"),
        (7, f"allowed: {', '.join(PARAM_NAMES)}"),
    ],
)
def test_an_unknown_key_is_named_with_its_nearest_names(key, hint):
    with pytest.raises(ParamError, match=f"^parameters: unknown parameter {key!r} = 0.5; {hint}$"):
        make_params({**DEFAULTS, key: 0.5})


@pytest.mark.parametrize(("padding", "size"), [(8, 8), (9, 8), (32, 32)])
def test_a_shift_by_the_whole_image_is_refused(padding, size):
    with pytest.raises(
        ParamError,
        match=rf"^crop_padding: got {padding}; allowed: less than image_size \({size}\)$",
    ):
        make(crop_padding=padding, image_size=size)


def test_an_objective_without_classes_is_refused():
    with pytest.raises(
        ParamError,
        match=r"^label_weight, alpha: got 0 and 0; allowed: at least one of them above 0",
    ):
        make(label_weight=0, alpha=0.0, feature_weight=1.0)


@pytest.mark.parametrize("weights", [(0, 0.1), (0.1, 0)])
def test_one_of_the_two_weights_is_enough(weights):
    params = make(label_weight=weights[0], alpha=weights[1])

    assert (params.label_weight, params.alpha) == weights


# --- seeds and weights of methods ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        ([0], (0,)),
        ([2, 0, 1], (2, 0, 1)),
        ((3, 4), (3, 4)),
        (0, (0,)),
        (7, (7,)),
        ([2**31 - 1], (2**31 - 1,)),
    ],
)
def test_seeds_keep_their_order_and_a_number_is_a_list_of_one(value, stored):
    assert make(seeds=value).seeds == stored


@pytest.mark.parametrize(
    "value",
    [
        [],
        (),
        [0, 0],
        [1, 2, 1],
        -1,
        [0, -1],
        2**31,
        [0, 2**31],
        True,
        [False],
        [0, True],
        "0",
        "[0, 1]",
        ["zero"],
        1.0,
        [0, 1.5],
    ],
    ids=str,
)
def test_other_seeds_are_refused(value):
    with pytest.raises(ParamError, match=refusal("seeds", value, SEEDS)):
        make(seeds=value)
    assert describe("seeds") == SEEDS


@pytest.mark.parametrize(
    ("written", "stored"), [("3", (3,)), ("[1, 0]", (1, 0)), ("\n- 5\n- 6", (5, 6))]
)
def test_seeds_as_they_stand_in_a_file(tmp_path, written, stored):
    text = PARAMS_FILE.read_text(encoding="utf-8")
    text, changed = re.subn(r"(?m)^seeds: .*", f"seeds: {written}", text)
    assert changed == 1
    (tmp_path / "params.yaml").write_text(text, encoding="utf-8")
    assert load_params(tmp_path / "params.yaml").seeds == stored


def test_every_method_has_a_weight_in_the_repositorys_file():
    assert set(load_params(PARAMS_FILE).method_weights) == set(further_methods())


def test_weights_of_methods_become_floats_and_need_not_be_of_all():
    stored = make(method_weights={"dkd": 2, "dist": "1e-3", "attention": 0}).method_weights
    assert stored == {"dkd": 2.0, "dist": 0.001, "attention": 0.0}
    assert {type(weight) for weight in stored.values()} == {float}
    assert make(method_weights={}).method_weights == {}


@pytest.mark.parametrize(
    "weight", [-1, -1e-9, "much", "", None, True, [1.0], {}, math.nan, math.inf, "inf", 10**400]
)
def test_a_wrong_weight_is_named_with_its_method(weight):
    with pytest.raises(ParamError, match=refusal("method_weights.dkd", weight, AT_LEAST_0)):
        make(method_weights={"dist": 1.0, "dkd": weight})


@pytest.mark.parametrize("name", ["dkdd", "DKD", "exp1", "logits", "control", "__init__", 1])
def test_a_weight_of_an_unknown_method_is_refused(name):
    with pytest.raises(
        ParamError, match=refusal("method_weights", str(name), ", ".join(further_methods()))
    ):
        make(method_weights={name: 1.0})


def test_a_method_given_twice_is_refused(tmp_path):
    path = tmp_path / "params.yaml"
    text = re.sub(r"(?m)^  dkd: .*", "  dkd: 8.0\n  dkd: 9.0", PARAMS_FILE.read_text("utf-8"))
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ParamError, match=rf"^{path}: not valid YAML: 'dkd' is given twice"):
        load_params(path)


def test_params_are_frozen_and_checked_again_when_replaced():
    params = make()
    with pytest.raises(dataclasses.FrozenInstanceError):
        params.alpha = 0.1
    with pytest.raises(ParamError, match=r"^epochs: got -1; "):
        dataclasses.replace(params, epochs=-1)
    assert dataclasses.replace(params, epochs=3).epochs == 3


def test_the_error_is_a_value_error_a_program_shows_as_one_line():
    assert issubclass(ParamError, DistillationError)
    assert issubclass(DistillationError, ValueError)


# --- files ---------------------------------------------------------------------------------------


def test_overrides_win_over_the_file():
    params = load_params(PARAMS_FILE, alpha=0.25, dataset="digits", stem_stride=None)

    assert (params.alpha, params.dataset, params.stem_stride) == (0.25, "digits", None)
    assert params.temperature == load_params(PARAMS_FILE).temperature


def test_an_override_replaces_a_wrong_value_in_the_file(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump({**DEFAULTS, "epochs": -1}))

    assert load_params(path, epochs=2).epochs == 2
    with pytest.raises(ParamError, match=r"^epochs: got -1; "):
        load_params(path)


def test_a_wrong_override_is_refused():
    with pytest.raises(ParamError, match=r"unknown parameter 'alfa' = 0.5; did you mean alpha\?"):
        load_params(PARAMS_FILE, alfa=0.5)
    with pytest.raises(ParamError, match=r"^temperature: got 0\.0; allowed: a number above 0$"):
        load_params(PARAMS_FILE, temperature=0)


def test_the_file_in_the_working_folder_is_the_default(tmp_path, monkeypatch):
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({**DEFAULTS, "seed": 77}))
    monkeypatch.chdir(tmp_path)

    assert load_params().seed == 77


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "got NoneType; allowed: a mapping of parameters"),
        (b"- a\n- b\n", "got list; allowed: a mapping of parameters"),
        (b"just text", "got str; allowed: a mapping of parameters"),
        (b"a: [1, 2", "not valid YAML: "),
        (b"a: b: c", "not valid YAML: "),
        (b"alpha: \xff\xfe\n", "not valid YAML: "),
        (b"alpha: \x00\n", "not valid YAML: "),
        (b"alpha: 0.5\n", "missing parameter dataset, "),
        (b"alfa: 0.5\n", "unknown parameter 'alfa' = 0.5; did you mean alpha?"),
    ],
    ids=["empty", "list", "text", "open", "colons", "not utf-8", "nul", "missing", "unknown"],
)
def test_a_file_that_holds_something_else_is_named(tmp_path, content, message):
    path = tmp_path / "params.yaml"
    path.write_bytes(content)
    with pytest.raises(ParamError, match=f"^{re.escape(f'{path}: {message}')}"):
        load_params(path)


@pytest.mark.parametrize(
    ("name", "reason"), [("gone.yaml", "No such file or directory"), ("", "Is a directory")]
)
def test_a_file_that_cannot_be_read_is_named(tmp_path, name, reason):
    path = tmp_path / name
    with pytest.raises(ParamError, match=rf"^{path}: cannot be read \({reason}\)$"):
        load_params(path)


@pytest.mark.parametrize("value", ["0.5", "0.9"], ids=["another value", "the same value"])
def test_a_key_given_twice_is_refused(tmp_path, value):
    """Plain YAML readers take the last, and nobody sees that the first is without effect."""
    path = tmp_path / "params.yaml"
    text = re.sub(r"(?m)^alpha: .*", "alpha: 0.9", PARAMS_FILE.read_text(encoding="utf-8"))
    path.write_text(f"{text}\nalpha: {value}\n", encoding="utf-8")
    assert yaml.safe_load(path.read_text(encoding="utf-8"))["alpha"] == float(value)

    with pytest.raises(ParamError, match=rf"^{path}: not valid YAML: 'alpha' is given twice"):
        load_params(path)


def test_a_key_given_twice_further_in_is_refused_too(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text("dataset: [{a: 1, b: 2, a: 3}]\n")

    with pytest.raises(ParamError, match="'a' is given twice"):
        load_params(path)


def test_a_file_may_merge_another_mapping(tmp_path):
    path = tmp_path / "params.yaml"
    text = re.sub(r"(?m)^alpha: .*", "<<: {alpha: 0.35}", PARAMS_FILE.read_text(encoding="utf-8"))
    path.write_text(text, encoding="utf-8")
    assert yaml.safe_load(text)["alpha"] == 0.35

    assert load_params(path).alpha == 0.35


# --- paths ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PATH_KEYS)
def test_a_path_to_nothing_is_refused(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = "cifar10, digits or " if name == "dataset" else ""
    allowed = f"{names}the path of something that exists"
    with pytest.raises(ParamError, match=refusal(name, "gone", allowed)):
        check_paths(make(**{name: "gone"}))
    (tmp_path / "gone").touch()
    check_paths(make(**{name: "gone"}))
    check_paths(make(**{name: str(tmp_path)}))


@pytest.mark.parametrize("name", ["cifar10", "digits"])
def test_built_in_data_sets_are_no_paths_and_checkpoints_are(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check_paths(make(dataset=name, teacher_checkpoint=None, student_checkpoint=None))
    with pytest.raises(ParamError, match=f"^teacher_checkpoint: got '{name}'; allowed: the path"):
        check_paths(make(dataset=name, teacher_checkpoint=name))


def test_a_path_may_start_with_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ParamError, match=r"^student_checkpoint: got '~/weights\.pt'; allowed: the"):
        check_paths(make(student_checkpoint="~/weights.pt"))
    (tmp_path / "weights.pt").touch()
    check_paths(make(student_checkpoint="~/weights.pt"))
