"""Device, precision and compilation are decided once, by parameters and device alone."""

import dataclasses
import sysconfig
import time

import pytest
import torch
from torch import nn

from distillation.base.params import describe
from distillation.training import runtime as runtime_module
from distillation.training.device import DeviceError
from distillation.training.parallel import Ranks
from distillation.training.runtime import CPU, Runtime, make_runtime

BF16 = Runtime(device=torch.device("cpu"), precision="bf16")


@pytest.fixture
def pretend(monkeypatch):
    """Let a device be there that is not; nothing is computed on it."""

    def build(name, *, bf16="real"):
        def is_bf16_supported(including_emulation=True):
            # Cards before Ampere emulate it, slowly: torch counts that unless told not to.
            return bf16 == "real" or (bf16 == "emulated" and including_emulation)

        monkeypatch.setattr(runtime_module, "select_device", lambda given: torch.device(name))
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", is_bf16_supported)
        monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
        monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
        monkeypatch.setattr(runtime_module, "_check_compiler", lambda is_cuda: None)

    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")  # as NVIDIA's containers have it
    yield build
    torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize(
    ("precision", "expected_precision"), [("auto", "fp32"), ("fp32", "fp32"), ("bf16", "bf16")]
)
@pytest.mark.parametrize(
    ("compiles", "expected_compiles"), [("auto", False), ("false", False), ("true", True)]
)
def test_on_the_cpu(precision, expected_precision, compiles, expected_compiles):
    assert make_runtime(precision=precision, compiles=compiles, device_name="cpu") == Runtime(
        device=torch.device("cpu"), precision=expected_precision, compiles=expected_compiles
    )


@pytest.mark.parametrize(
    ("precision", "expected_precision"), [("auto", "bf16"), ("fp32", "fp32"), ("bf16", "bf16")]
)
@pytest.mark.parametrize(
    ("compiles", "expected_compiles"), [("auto", True), ("false", False), ("true", True)]
)
def test_on_cuda(pretend, precision, expected_precision, compiles, expected_compiles):
    pretend("cuda")
    assert make_runtime(precision=precision, compiles=compiles) == Runtime(
        device=torch.device("cuda"), precision=expected_precision, compiles=expected_compiles
    )
    assert torch.backends.cudnn.benchmark is True
    # Full precision is what it says: torch's own default for convolutions is TF32.
    assert torch.backends.cudnn.allow_tf32 is (expected_precision == "bf16")
    # Products of matrices in float32 are Muon's and some losses', whatever the forward pass has.
    assert torch.get_float32_matmul_precision() == "highest"


@pytest.mark.parametrize(
    ("device", "compiler", "has_headers", "missing"),
    [
        ("cuda", "gcc", True, None),
        ("cuda", "clang", True, None),
        ("cuda", "none", True, r"a C compiler \(.*: gcc\)"),
        ("cuda", "gcc", False, r"Python's headers \(.*: python3-dev\)"),
        ("cuda", "none", False, r"a C compiler \(.*\) and Python's headers \(.*\)"),
        ("cpu", "g++", True, None),
        ("cpu", "gcc", True, r"a C\+\+ compiler \(.*: g\+\+\)"),
    ],
)
def test_compiling_needs_a_compiler(
    pretend, monkeypatch, tmp_path, device, compiler, has_headers, missing
):
    check = runtime_module._check_compiler
    pretend(device)
    monkeypatch.setattr(runtime_module, "_check_compiler", check)
    for folder in ("bin", "include"):
        (tmp_path / folder).mkdir()
    (tmp_path / "bin" / compiler).touch(mode=0o755)
    if has_headers:
        (tmp_path / "include/Python.h").touch()
    for name in ("CC", "CXX"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(sysconfig, "get_path", lambda name, scheme: str(tmp_path / "include"))
    assert make_runtime(compiles="false").compiles is False
    if missing is None:
        assert make_runtime(compiles="true").compiles is True
        return
    with pytest.raises(DeviceError, match=rf"^compile: torch\.compile needs {missing}, not found"):
        make_runtime(compiles="true")


def test_the_default_is_plain_float32_on_the_cpu():
    assert make_runtime(device_name="cpu") == CPU == Runtime(device=torch.device("cpu"))
    assert (CPU.precision, CPU.compiles) == ("fp32", False)


@pytest.mark.parametrize(
    ("device", "bf16"),
    [
        ("mps", "real"),
        ("cuda", "none"),
        ("cuda", "emulated"),
    ],
)
def test_where_bf16_is_missing_auto_does_without_and_asking_is_an_error(pretend, device, bf16):
    pretend(device, bf16=bf16)
    assert make_runtime(precision="auto").precision == "fp32"
    assert make_runtime(precision="fp32").precision == "fp32"
    with pytest.raises(
        DeviceError,
        match=rf"^precision: got 'bf16', which {device} has not; allowed: auto or fp32$",
    ):
        make_runtime(precision="bf16")


@pytest.mark.parametrize(("compiles", "expected"), [("auto", False), ("true", True)])
def test_auto_compiles_on_cuda_alone(pretend, compiles, expected):
    pretend("mps")
    assert make_runtime(compiles=compiles).compiles is expected


def test_an_unknown_device_is_an_error():
    with pytest.raises(DeviceError, match="device: got 'tpu'"):
        make_runtime(device_name="tpu")


def test_its_words_are_those_of_the_parameters():
    assert describe("precision") == "auto, fp32 or bf16"
    assert describe("compile") == "auto, true or false"


def test_a_runtime_does_not_change():
    with pytest.raises(dataclasses.FrozenInstanceError):
        CPU.precision = "bf16"


# Arithmetic


@pytest.mark.parametrize(("runtime", "dtype"), [(CPU, torch.float32), (BF16, torch.bfloat16)])
def test_autocast_changes_what_a_layer_gives_and_not_its_weights(runtime, dtype):
    layer = nn.Linear(3, 2)
    with runtime.autocast():
        found = layer(torch.ones(4, 3))
    assert found.dtype == dtype
    assert layer.weight.dtype == torch.float32
    assert layer(torch.ones(4, 3)).dtype == torch.float32
    found.float().sum().backward()
    assert layer.weight.grad.dtype == torch.float32


# Compilation


def test_without_compilation_the_function_is_itself():
    def function(value):
        return value

    assert CPU.compile(function) is function
    assert BF16.compile(function) is function


@pytest.mark.parametrize(("device", "mode"), [("cpu", None), ("cuda", "reduce-overhead")])
def test_compilation_is_for_fixed_shapes_and_with_graphs_on_cuda(monkeypatch, device, mode):
    asked = []

    def fake_compile(function, **options):
        asked.append((function, options))
        return "compiled"

    monkeypatch.setattr(torch, "compile", fake_compile)
    runtime = Runtime(device=torch.device(device), compiles=True)
    assert runtime.compile(abs) == "compiled"
    assert asked == [(abs, {"dynamic": False, "mode": mode})]


@pytest.mark.parametrize(
    ("device", "num_ranks", "compiles"), [("cpu", 2, True), ("cuda", 1, True), ("cuda", 2, False)]
)
def test_gpus_that_share_a_training_do_not_compile(device, num_ranks, compiles):
    runtime = Runtime(device=torch.device(device), compiles=True)
    shared = dataclasses.replace(runtime, ranks=Ranks(rank=0, size=num_ranks))
    assert shared.compiles_steps is compiles
    assert (shared.compile(abs) is abs) is not compiles
    assert not dataclasses.replace(shared, compiles=False).compiles_steps


def test_core_seconds_count_work_and_not_waiting():
    start = CPU.compute_seconds()
    time.sleep(0.3)
    assert CPU.compute_seconds() - start < 0.15
    while time.process_time() - start < 0.5:
        pass
    assert CPU.compute_seconds() - start >= 0.5
    assert CPU.compute_unit == "core"


def test_gpus_count_by_the_clock(pretend):
    pretend("cuda")
    runtime = make_runtime()
    start = runtime.compute_seconds()
    time.sleep(0.05)
    assert runtime.compute_seconds() - start >= 0.05
    assert runtime.compute_unit == "GPU"


def test_all_devices_of_a_training_count():
    several = dataclasses.replace(CPU, ranks=dataclasses.replace(CPU.ranks, size=3))
    assert several.compute_seconds() == pytest.approx(3 * CPU.compute_seconds(), rel=0.05)
