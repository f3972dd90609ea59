"""How the trainings of a stage share a machine: rules, for machines that are pretended."""

import pytest
import torch

from distillation.runs import processes
from distillation.runs.processes import ProcessesError, plan_processes, use_threads


@pytest.fixture
def machine(monkeypatch):
    """Return a function that pretends a machine with so many cores and GPUs."""

    def pretend(cores, *, gpus=0, omp_threads=None):
        monkeypatch.delenv("DISTILLATION_PROCESSES", raising=False)
        monkeypatch.delenv("DISTILLATION_DEVICES", raising=False)
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        if omp_threads is not None:
            monkeypatch.setenv("OMP_NUM_THREADS", str(omp_threads))
        monkeypatch.setattr(torch, "get_num_threads", lambda: omp_threads or cores)
        monkeypatch.setattr(processes, "count_cores", lambda: cores)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)

    return pretend


@pytest.mark.parametrize(
    ("cores", "seeds", "num_processes", "num_threads"),
    [
        (2, 1, 1, 2),
        (2, 2, 2, 1),
        (2, 3, 3, 1),  # two at once would leave a core idle while the third trains
        (2, 4, 2, 1),  # three at once would
        (2, 5, 3, 1),
        (2, 6, 2, 1),
        (1, 3, 1, 1),
        (4, 3, 3, 1),
        (4, 5, 5, 1),
        (4, 6, 6, 1),
        (4, 8, 4, 1),
        (8, 3, 3, 2),
        (16, 1, 1, 16),
        (16, 3, 3, 5),
    ],
)
def test_on_cores(machine, cores, seeds, num_processes, num_threads):
    machine(cores)
    plan = plan_processes(seeds, device_name="auto")
    assert (plan.num_processes, plan.num_threads) == (num_processes, num_threads)
    assert plan.devices == (("cpu",),) * num_processes


@pytest.mark.parametrize(
    ("omp_threads", "num_processes"),
    [(1, 3), (2, 1), (4, 1)],  # teams of threads never share a core
)
def test_omp_num_threads_is_what_each_training_gets(machine, omp_threads, num_processes):
    machine(2, omp_threads=omp_threads)
    plan = plan_processes(3, device_name="cpu")
    assert (plan.num_processes, plan.num_threads) == (num_processes, omp_threads)


@pytest.mark.parametrize(
    ("gpus", "device_name", "devices"),
    [
        (1, "auto", ("cuda",)),
        (2, "auto", ("cuda:0", "cuda:1")),
        (2, "cuda", ("cuda:0", "cuda:1")),
        (5, "auto", ("cuda:0", "cuda:1", "cuda:2")),
        (8, "cuda:5", ("cuda:5",)),
        (8, "cpu", ("cpu", "cpu", "cpu")),
        (0, "mps", ("mps",)),
    ],
)
def test_a_gpu_has_one(machine, gpus, device_name, devices):
    machine(16, gpus=gpus)
    plan = plan_processes(3, device_name=device_name)
    assert plan.devices == tuple((device,) for device in devices)
    assert plan.num_devices == 1


@pytest.mark.parametrize(
    ("seeds", "gpus", "wanted", "devices"),
    [
        (1, 4, None, ["0123"]),  # a teacher has them all
        (1, 4, 1, ["0"]),
        (3, 8, None, ["01", "23", "45"]),
        (3, 8, 4, ["0123", "4567"]),
        (3, 4, 2, ["01", "23"]),
        (3, 4, 3, ["012"]),
        (5, 2, 2, ["01"]),
        (3, 8, 1, ["0", "1", "2"]),
    ],
)
def test_gpus_left_over_are_shared_by_the_trainings(
    machine, monkeypatch, seeds, gpus, wanted, devices
):
    machine(16, gpus=gpus)
    if wanted is not None:
        monkeypatch.setenv("DISTILLATION_DEVICES", str(wanted))
    plan = plan_processes(seeds, device_name="auto")
    assert plan.devices == tuple(tuple(f"cuda:{gpu}" for gpu in one) for one in devices)
    assert plan.num_processes == len(devices)


@pytest.mark.parametrize(
    ("cores", "seeds", "num_processes", "num_threads"),
    [(2, 1, 1, 2), (2, 3, 1, 1), (8, 3, 4, 2), (8, 1, 1, 8), (1, 1, 1, 1)],
)
def test_processes_on_the_cpu_share_the_threads_of_a_training(
    machine, monkeypatch, cores, seeds, num_processes, num_threads
):
    machine(cores)
    monkeypatch.setenv("DISTILLATION_DEVICES", "2")
    plan = plan_processes(seeds, device_name="cpu")
    assert (plan.num_processes, plan.num_threads) == (min(num_processes, seeds), num_threads)
    assert plan.devices == (("cpu", "cpu"),) * plan.num_processes


@pytest.mark.parametrize(
    ("gpus", "device_name", "there"), [(2, "auto", 2), (8, "cuda:5", 1), (0, "mps", 1)]
)
def test_more_devices_than_there_are_are_refused(machine, monkeypatch, gpus, device_name, there):
    machine(16, gpus=gpus)
    monkeypatch.setenv("DISTILLATION_DEVICES", "3")
    with pytest.raises(ProcessesError, match=rf"^DISTILLATION_DEVICES: got 3; .* most {there}, "):
        plan_processes(1, device_name=device_name)


def test_how_many_run_at_once_can_be_chosen_and_leaves_the_threads(machine, monkeypatch):
    machine(2)
    monkeypatch.setenv("DISTILLATION_PROCESSES", " 2 ")
    plan = plan_processes(3, device_name="cpu")
    assert (plan.num_processes, plan.num_threads, plan.devices) == (2, 1, (("cpu",), ("cpu",)))
    plan = plan_processes(3, device_name="cpu", num_processes=1)
    assert (plan.num_processes, plan.num_threads) == (1, 1)
    assert plan_processes(3, device_name="cpu", num_processes=9).num_processes == 3
    machine(16, gpus=2)
    plan = plan_processes(4, device_name="auto", num_processes=3)
    assert plan.devices == (("cuda:0",), ("cuda:1",), ("cuda:0",))


@pytest.mark.parametrize("name", ["DISTILLATION_PROCESSES", "DISTILLATION_DEVICES"])
@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5", "9" * 5000])
def test_a_number_that_is_none_is_refused(monkeypatch, name, text):
    monkeypatch.setenv(name, text)
    with pytest.raises(ProcessesError, match=rf"^{name}: got '.*'; allowed: a whole number at lea"):
        plan_processes(3, device_name="cpu")


def test_threads_are_as_before_afterwards():
    before = torch.get_num_threads()
    with use_threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
