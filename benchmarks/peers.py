"""The ways of others, each as its own documentation sets it up, and the limit.

Every function prepares everything, takes the warm-up steps and returns a function that runs one
epoch and gives its last loss; the caller takes the time. Defaults stay as they are, memory format
and optimizer implementation included, since that is what a user gets.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import RandomSampler

from benchmarks.settings import ALPHA, LEARNING_RATE, NUM_CLASSES, SEED, TEMPERATURE
from benchmarks.workload import (
    Job,
    loader_options,
    make_batch,
    make_dataset,
    make_loader,
    make_models,
    warm_up,
)

Epoch = Callable[[], float]
"""Runs one epoch and gives the last step's loss."""


def timm_task(job: Job) -> Epoch:
    """Loop over a DataLoader with timm's own distillation task."""
    from timm.task import LogitDistillationTask

    teacher, student = make_models(job)
    task = LogitDistillationTask(
        student,
        teacher,
        criterion=nn.CrossEntropyLoss(),
        distill_loss_weight=ALPHA,
        task_loss_weight=1 - ALPHA,
        temperature=TEMPERATURE,
        device=job.device,
        verbose=False,
    )
    task.train()
    optimizer = torch.optim.AdamW(student.parameters(), lr=LEARNING_RATE)

    def step(images: Tensor, labels: Tensor) -> Tensor:
        images = images.to(job.device, non_blocking=True)
        labels = labels.to(job.device, non_blocking=True)
        optimizer.zero_grad()
        loss: Tensor = task(images, labels)["loss"]
        loss.backward()
        optimizer.step()
        return loss.detach()

    return _loader_epoch(step, job)


def tutorial(job: Job) -> Epoch:
    """Do what a reader of PyTorch's tutorial on distillation does, who logs every step's loss."""
    teacher, student = make_models(job)
    student.train()
    cross_entropy = nn.CrossEntropyLoss()
    optimizer = torch.optim.AdamW(student.parameters(), lr=LEARNING_RATE)

    def step(images: Tensor, labels: Tensor) -> float:
        images, labels = images.to(job.device), labels.to(job.device)
        optimizer.zero_grad()
        with torch.no_grad():
            teacher_logits = teacher(images)
        student_logits = student(images)
        loss = ALPHA * _divergence(student_logits, teacher_logits)
        loss = loss + (1 - ALPHA) * cross_entropy(student_logits, labels)
        loss.backward()
        optimizer.step()
        return float(loss.item())

    return _loader_epoch(step, job)


def torchdistill(job: Job) -> Epoch:
    """Drive torchdistill's box, losses and meters as its image-classification example does.

    The box leaves a teacher's mode alone, and the example leaves it in training mode; here it is
    in evaluation mode, which is faster and right.
    """
    try:
        from torchdistill.core.distillation import get_distillation_box
        from torchdistill.misc.log import MetricLogger, SmoothedValue
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{error}; install the peers: pip install -r requirements-bench.txt"
        ) from error

    teacher, student = make_models(job)
    outputs = {
        f"{model}_module_{key}": value
        for model in ("student", "teacher")
        for key, value in (("path", "."), ("io", "output"))
    }
    # Its alpha weighs the cross-entropy, ours the divergence.
    kd_loss = {
        "key": "KDLoss",
        "kwargs": {**outputs, "temperature": TEMPERATURE, "alpha": 1 - ALPHA},
    }
    box = get_distillation_box(
        teacher,
        student,
        {"train": make_dataset(job)},
        {
            "num_epochs": 1,
            "train_data_loader": {
                "dataset_id": "train",
                "sampler": {"class_or_func": RandomSampler},
                "kwargs": loader_options(job),
            },
            "teacher": {"forward_proc": "forward_batch_only", "requires_grad": False},
            "student": {"forward_proc": "forward_batch_only", "requires_grad": True},
            "optimizer": {"key": "AdamW", "kwargs": {"lr": LEARNING_RATE}},
            "criterion": {
                "key": "WeightedSumLoss",
                "kwargs": {"sub_terms": {"kd": {"criterion": kd_loss, "weight": 1.0}}},
            },
        },
        job.device,
        None,
        False,
        1,
    )
    student.train()

    def step(images: Tensor, labels: Tensor, extra: dict[str, Tensor]) -> Tensor:
        images, labels = images.to(job.device), labels.to(job.device)
        loss: Tensor = box.forward_process(images, labels, extra)
        box.post_forward_process(loss=loss)
        return loss

    warm_up(lambda images, labels: step(images, labels, {}), job)

    def epoch() -> float:
        box.pre_epoch_process(epoch=0)
        logger = MetricLogger(delimiter="  ")
        logger.add_meter("lr", SmoothedValue(window_size=1, fmt="{value}"))
        for images, labels, extra in logger.log_every(box.train_data_loader, 100, "Epoch: [0]"):
            loss = step(images, labels, extra).item()
            logger.update(loss=loss, lr=box.optimizer.param_groups[0]["lr"])
        box.post_epoch_process()
        return float(logger.meters["loss"].value)

    return epoch


def limit(job: Job) -> Epoch:
    """Take the student's step alone, eager: one fixed batch in channels_last, fixed teacher logits.

    No data is loaded, no view made, no teacher run.
    """
    _, student = make_models(job)
    student = student.to(memory_format=torch.channels_last).train()
    images, labels = (tensor.to(job.device) for tensor in make_batch(job))
    images = images.contiguous(memory_format=torch.channels_last)
    generator = torch.Generator().manual_seed(SEED)
    teacher_logits = torch.randn(job.batch_size, NUM_CLASSES, generator=generator).to(job.device)
    optimizer = torch.optim.AdamW(student.parameters(), lr=LEARNING_RATE, fused=True)

    def step() -> Tensor:
        student_logits = student(images)
        loss = ALPHA * _divergence(student_logits, teacher_logits)
        loss = loss + (1 - ALPHA) * F.cross_entropy(student_logits, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.detach()

    warm_up(lambda images, labels: step(), job)

    def epoch() -> float:
        for _ in range(job.num_steps):
            loss = step()
        return float(loss)

    return epoch


def _loader_epoch(step: Callable[[Tensor, Tensor], Tensor | float], job: Job) -> Epoch:
    """Warm up, and give an epoch over a DataLoader, its start included."""
    loader = make_loader(job)
    warm_up(step, job)

    def epoch() -> float:
        for images, labels in loader:
            loss = step(images, labels)
        return float(loss)

    return epoch


def _divergence(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """T² · KL(teacher ‖ student), averaged over the batch, as the peers compute it."""
    divergence = F.kl_div(
        F.log_softmax(student_logits / TEMPERATURE, dim=1),
        F.softmax(teacher_logits / TEMPERATURE, dim=1),
        reduction="batchmean",
    )
    return TEMPERATURE**2 * divergence
