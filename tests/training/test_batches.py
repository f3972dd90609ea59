"""Batches: every sample once, aligned with its labels and targets, read ahead and put away."""

import dataclasses
import threading
import time

import numpy as np
import pytest
import torch

from distillation.data.prepared import PreparedData, Split
from distillation.data.rows import ResidentRows, StreamedRows
from distillation.training import batches as batches_module
from distillation.training.batches import (
    UNLABELED,
    TrainSet,
    batch_shape,
    iterate_batches,
    shuffle,
)
from distillation.training.hashing import Draws
from distillation.training.labels import MixedLabels
from distillation.training.mixing import draw_mixture, mix
from distillation.training.setup import to_device
from distillation.training.views import ViewSettings, augment, views_of_passes

NUM_SAMPLES = 23
VIEWS = ViewSettings(view_seed=5, crop_padding=2, horizontal_flip=True)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def make_images(count=NUM_SAMPLES):
    return torch.randint(0, 256, (count, 8, 6, 3), generator=generator(1)).to(torch.uint8)


IMAGES = make_images()
LABELS = torch.arange(NUM_SAMPLES) % 4


class Outputs:
    """Outputs of a teacher that say which sample and view they are of."""

    def __init__(self, *, is_streamed=False, failing_at=None):
        self.is_streamed = is_streamed
        self.failing_at = failing_at
        self.threads = []

    def take(self, samples, view_number):
        self.threads.append(threading.current_thread().name)
        if len(self.threads) == self.failing_at:
            raise EOFError("the file was cut short")
        assert torch.equal(samples.host, samples.device)
        return {"logits": samples.device + 1000 * view_number}


@pytest.fixture
def streamed_images(tmp_path):
    np.save(tmp_path / "images.npy", IMAGES.numpy())
    return StreamedRows(np.load(tmp_path / "images.npy", mmap_mode="r"), torch.device("cpu"))


def make_train(images=None, *, samples=range(NUM_SAMPLES), teacher_outputs=None, repeats_to=0):
    return TrainSet(
        images=images or ResidentRows(IMAGES),
        labels=LABELS,
        samples=torch.tensor(list(samples)),
        teacher_outputs=teacher_outputs,
        repeats_to=repeats_to,
    )


def batches_of(train, order, batch_size=5, view_number=3):
    return iterate_batches(train, order, batch_size, view_number, views=VIEWS)


def prefetch_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]


@pytest.fixture(autouse=True)
def no_thread_stays():
    assert prefetch_threads() == []
    yield
    assert prefetch_threads() == []


# Sizes and order


@pytest.mark.parametrize(
    ("num_samples", "batch_size", "expected"),
    [
        (50, 16, (4, 13)),
        (129, 128, (2, 65)),
        (128, 128, (1, 128)),
        (5, 128, (1, 5)),
        (4, 2, (2, 2)),
        (1, 1, (1, 1)),
        (45_000, 128, (352, 128)),
    ],
)
def test_batch_shape_by_hand(num_samples, batch_size, expected):
    assert batch_shape(num_samples, batch_size) == expected


def test_batches_are_the_smallest_that_need_no_more_steps():
    for num_samples in range(1, 60):
        for batch_size in range(1, 64):
            num_steps = -(-num_samples // batch_size)
            enough = [size for size in range(1, batch_size + 1) if size * num_steps >= num_samples]
            assert batch_shape(num_samples, batch_size) == (num_steps, min(enough))


@pytest.mark.parametrize(("num_samples", "batch_size"), [(50, 16), (129, 128), (5, 128), (7, 3)])
def test_every_sample_comes_once_and_a_few_twice_to_fill_the_last_batch(num_samples, batch_size):
    samples = 3 * torch.arange(num_samples) + 1
    num_steps, size = batch_shape(num_samples, batch_size)
    order = shuffle(samples, num_steps * size, generator=generator())
    assert len(order) == num_steps * size
    assert [len(batch) for batch in order.split(size)] == [size] * num_steps
    assert torch.equal(order[:num_samples].sort().values, samples)
    repeated = order[num_samples:]
    assert len(repeated) < num_steps
    assert torch.equal(repeated, order[: len(repeated)])


def test_no_batch_holds_a_sample_twice():
    for num_samples in range(1, 40):
        for batch_size in range(1, 20):
            num_steps, size = batch_shape(num_samples, batch_size)
            order = shuffle(torch.arange(num_samples), num_steps * size, generator=generator())
            for batch in order.split(size):
                assert len(batch.unique()) == len(batch)


def test_the_order_is_drawn_from_the_generator_alone():
    samples = torch.arange(100)
    first = generator(4)
    torch.manual_seed(0)
    state = torch.get_rng_state()
    epochs = [shuffle(samples, 250, generator=first) for _ in range(3)]
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(99)
    again = generator(4)
    assert all(torch.equal(shuffle(samples, 250, generator=again), epoch) for epoch in epochs)
    assert not torch.equal(epochs[0], epochs[1])
    assert not torch.equal(shuffle(samples, 250, generator=generator(5)), epochs[0])
    assert torch.equal(samples, torch.arange(100))


@pytest.mark.parametrize("num_drawn", [100, 101, 104, 199])
def test_one_pass_is_a_permutation_and_its_first_few_again(num_drawn):
    samples = 7 * torch.arange(100)
    expected = samples[torch.randperm(100, generator=generator(3))]
    found = shuffle(samples, num_drawn, generator=generator(3))
    assert torch.equal(found, torch.cat([expected, expected[: num_drawn - 100]]))


@pytest.mark.parametrize(("num_samples", "num_drawn"), [(10, 103), (10, 100), (7, 20), (1, 5)])
def test_many_passes_are_whole_and_each_in_an_order_of_its_own(num_samples, num_drawn):
    samples = 5 * torch.arange(num_samples) + 2
    order = shuffle(samples, num_drawn, generator=generator())
    assert len(order) == num_drawn
    num_passes, rest = divmod(num_drawn, num_samples)
    passes = order[: num_passes * num_samples].view(num_passes, num_samples)
    assert all(torch.equal(one.sort().values, samples) for one in passes)
    assert torch.equal(order[num_passes * num_samples :], passes[0][:rest])
    counts = [int((order == sample).sum()) for sample in samples]
    assert set(counts) <= {num_passes, num_passes + 1}
    assert counts.count(num_passes + 1) == rest
    if num_samples > 5:
        assert len({tuple(one.tolist()) for one in passes}) == num_passes


@pytest.mark.parametrize(
    ("repeats_to", "expected"), [(0, 4), (3, 4), (4, 4), (5, 5), (NUM_SAMPLES, NUM_SAMPLES)]
)
def test_an_epoch_shows_all_samples_and_as_many_images_as_asked_for(repeats_to, expected):
    train = make_train(samples=[2, 3, 11, 20], repeats_to=repeats_to)
    assert train.epoch_size == expected
    assert len(train) == NUM_SAMPLES
    assert make_train(samples=[2]).epoch_size == 1


# Content


@pytest.mark.parametrize("is_streamed", [False, True])
def test_batches_hold_the_views_labels_and_targets_of_their_samples(streamed_images, is_streamed):
    images = streamed_images if is_streamed else None
    order = torch.tensor([22, 3, 3, 0, 17, 5, 9])
    train = make_train(images, teacher_outputs=Outputs(is_streamed=is_streamed))
    found = list(batches_of(train, order, 3, view_number=7))
    assert [len(batch.images) for batch in found] == [3, 3, 1]
    for batch, samples in zip(found, order.split(3), strict=True):
        assert torch.equal(batch.labels, samples % 4)
        assert torch.equal(batch.teacher_outputs["logits"], samples + 7000)
        for image, sample in zip(batch.images, samples.tolist(), strict=True):
            alone = augment(IMAGES[[sample]], torch.tensor([sample]), 7, settings=VIEWS)
            assert torch.equal(image, alone[0])
        assert batch.images.is_contiguous(memory_format=torch.channels_last)
        assert batch.images.dtype == torch.uint8


def test_without_a_teachers_outputs_there_are_no_targets():
    assert [batch.teacher_outputs for batch in batches_of(make_train(), torch.arange(10))] == [
        {},
        {},
    ]


def test_a_view_does_not_depend_on_which_other_samples_are_trained_on():
    everything = make_train(samples=range(NUM_SAMPLES))
    labelled = make_train(samples=[2, 3, 11, 20])
    seen = {}
    for batch in batches_of(everything, everything.samples):
        for image in batch.images:
            seen[len(seen)] = image
    order = shuffle(labelled.samples, 4, generator=generator())
    assert sorted(order.tolist()) == [2, 3, 11, 20]
    for batch, samples in zip(batches_of(labelled, order, 2), order.split(2), strict=True):
        assert torch.equal(batch.labels, LABELS[samples])
        for image, sample in zip(batch.images, samples.tolist(), strict=True):
            assert torch.equal(image, seen[sample])


def test_the_labelled_samples_are_those_trained_on():
    split = Split(images=IMAGES.numpy(), labels=LABELS.numpy())
    data = PreparedData(
        train=split,
        validation=split,
        test=split,
        labeled=np.array([1, 4, 22]),
        class_names=("a", "b", "c", "d"),
        source="noise",
        view_seed=5,
        provenance={},
    )
    train = to_device(data, torch.device("cpu")).train
    assert train.samples.tolist() == [1, 4, 22]
    assert len(train) == NUM_SAMPLES  # samples stay indices into the whole set
    known = [1, 4, 22]
    assert torch.equal(train.labels[known], LABELS[known])
    hidden = [sample for sample in range(NUM_SAMPLES) if sample not in known]
    assert train.labels[hidden].tolist() == [UNLABELED] * 20
    assert train.epoch_size == 3


# Each image's own view


def assert_views(batches, order, batch_size, view_numbers):
    """Each image is the view of its own number."""
    chunks = zip(order.split(batch_size), view_numbers.split(batch_size), strict=True)
    for batch, (samples, numbers) in zip(batches, chunks, strict=True):
        assert torch.equal(batch.labels, LABELS[samples])
        for image, sample, number in zip(batch.images, samples, numbers.tolist(), strict=True):
            alone = augment(IMAGES[[int(sample)]], sample.view(1), number, settings=VIEWS)
            assert torch.equal(image, alone[0])


@pytest.mark.parametrize("is_streamed", [False, True])
def test_images_may_have_views_of_their_own(streamed_images, is_streamed):
    order = torch.tensor([22, 3, 3, 0, 17, 5, 9])
    view_numbers = torch.tensor([0, 1, 2, 1000, 3, 3, 0])
    train = make_train(streamed_images if is_streamed else None)
    found = list(batches_of(train, order, 3, view_numbers))
    assert [len(batch.images) for batch in found] == [3, 3, 1]
    assert_views(found, order, 3, view_numbers)
    assert not torch.equal(found[0].images[1], found[0].images[2])  # two views of sample 3
    assert all(batch.teacher_outputs == {} for batch in found)


def test_one_number_and_as_many_equal_numbers_are_the_same():
    train, order = make_train(), torch.arange(10)
    numbers = torch.full((10,), 3)
    for one, many in zip(
        batches_of(train, order), batches_of(train, order, view_number=numbers), strict=True
    ):
        assert torch.equal(one.images, many.images)


def test_passes_through_a_few_samples_show_new_views():
    samples, num_drawn = torch.tensor([2, 3, 11]), 8
    train = make_train(samples=samples.tolist(), repeats_to=num_drawn)
    seen = set()
    for epoch in range(3):
        order = shuffle(train.samples, num_drawn, generator=generator(epoch))
        numbers = views_of_passes(num_drawn, 3, epoch=epoch, seed=1)
        assert_views(batches_of(train, order, 4, numbers), order, 4, numbers)
        seen |= set(zip(order.tolist(), numbers.tolist(), strict=True))
    assert len(seen) == 3 * num_drawn


def test_stored_outputs_are_not_looked_up_for_views_of_passes():
    train = make_train(teacher_outputs=Outputs())
    batches = batches_of(train, torch.arange(10), view_number=torch.arange(10))
    with pytest.raises(AssertionError, match="stored outputs are looked up by one view's number"):
        next(batches)
    assert train.teacher_outputs.threads == []


# Reading ahead


@pytest.mark.parametrize("streamed", ["images", "targets", "both"])
def test_streamed_batches_are_the_resident_ones_to_the_bit(streamed_images, streamed):
    order = shuffle(torch.arange(NUM_SAMPLES), NUM_SAMPLES + 2, generator=generator(2))
    images = None if streamed == "targets" else streamed_images
    targets = Outputs(is_streamed=streamed != "images")
    found = list(batches_of(make_train(images, teacher_outputs=targets), order))
    expected = list(batches_of(make_train(teacher_outputs=Outputs()), order))
    assert len(found) == len(expected) == 5
    for first, second in zip(found, expected, strict=True):
        assert torch.equal(first.images, second.images)
        assert first.images.stride() == second.images.stride()
        assert torch.equal(first.labels, second.labels)
        assert torch.equal(first.teacher_outputs["logits"], second.teacher_outputs["logits"])
    assert set(targets.threads) == {"prefetch_0"}


def test_what_is_resident_needs_no_thread():
    targets = Outputs()
    list(batches_of(make_train(teacher_outputs=targets), torch.arange(20)))
    assert set(targets.threads) == {threading.current_thread().name}


def test_a_few_batches_are_read_ahead_and_no_more():
    targets = Outputs(is_streamed=True)
    batches = batches_of(make_train(teacher_outputs=targets), torch.arange(20).repeat(5))
    ahead = batches_module._PREFETCHED_BATCHES
    assert ahead >= 1
    for taken in range(1, 4):
        next(batches)
        deadline = time.monotonic() + 10
        while len(targets.threads) < taken + ahead and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(0.02)  # for one too many
        assert len(targets.threads) == taken + ahead
    batches.close()


def test_no_epoch_is_too_short_to_read_ahead():
    for num_batches in range(1, 5):
        train = make_train(teacher_outputs=Outputs(is_streamed=True))
        assert len(list(batches_of(train, torch.arange(num_batches), 1))) == num_batches


@pytest.mark.parametrize("failing_at", [1, 3, 4])
def test_an_error_while_reading_ahead_reaches_the_caller_in_its_place(failing_at):
    targets = Outputs(is_streamed=True, failing_at=failing_at)
    batches = batches_of(make_train(teacher_outputs=targets), torch.arange(20))
    for _ in range(failing_at - 1):
        next(batches)
    with pytest.raises(EOFError, match="the file was cut short"):
        next(batches)
    assert prefetch_threads() == []
    with pytest.raises(StopIteration):
        next(batches)


@pytest.mark.parametrize("how", ["close", "forget", "error"])
def test_stopping_early_leaves_no_thread(how):
    targets = Outputs(is_streamed=True)
    batches = batches_of(make_train(teacher_outputs=targets), torch.arange(20).repeat(10))
    next(batches)
    assert len(prefetch_threads()) == 1
    if how == "close":
        batches.close()
    elif how == "error":
        with pytest.raises(ZeroDivisionError):
            batches.throw(ZeroDivisionError())
    del batches
    assert prefetch_threads() == []
    assert len(targets.threads) <= 1 + batches_module._PREFETCHED_BATCHES


# Mixed views

MIXING = {
    "mixup": dataclasses.replace(VIEWS, mixup=0.8),
    "cutmix": dataclasses.replace(VIEWS, cutmix=1.0),
    "both": dataclasses.replace(VIEWS, mixup=0.4, cutmix=1.0, color_jitter=0.3),
}


def partner_of(sample, view, candidates):
    bits = Draws(seed=5, samples=torch.tensor([sample]), view_number=view).bits(7)
    return candidates[int(bits) * len(candidates) >> 32]


def mixed_alone(sample, view, candidates, views):
    """One sample's view, its partner's label and its share, from the parts."""
    partner = partner_of(sample, view, candidates)
    own, other = (
        augment(IMAGES[[one]], torch.tensor([one]), view, settings=views)
        for one in (sample, partner)
    )
    draws = Draws(seed=5, samples=torch.tensor([sample]), view_number=view)
    drawn = draw_mixture(draws, height=8, width=6, mixup=views.mixup, cutmix=views.cutmix)
    return mix(own, other, drawn)[0], int(LABELS[partner]), float(drawn.shares)


@pytest.mark.parametrize("option", MIXING)
@pytest.mark.parametrize("batch_size", [1, 4, 23])
def test_a_mixed_view_is_the_same_in_any_batch(option, batch_size):
    views = MIXING[option]
    order = torch.randperm(NUM_SAMPLES, generator=generator(batch_size))
    seen, partners = 0, set()
    for batch in iterate_batches(make_train(), order, batch_size, 3, views=views):
        assert batch.images.is_contiguous(memory_format=torch.channels_last)
        for place in range(len(batch.labels)):
            sample = int(order[seen])
            image, partner_label, share = mixed_alone(sample, 3, range(NUM_SAMPLES), views)
            assert torch.equal(batch.images[place], image)
            assert batch.labels[place] == LABELS[sample]
            assert batch.partner_labels[place] == partner_label
            assert batch.label_shares[place] == share
            partners.add(partner_of(sample, 3, range(NUM_SAMPLES)))
            seen += 1
    assert seen == NUM_SAMPLES
    assert len(partners) > NUM_SAMPLES / 2


def test_partners_come_from_the_samples_trained_on_whatever_their_order():
    views = MIXING["mixup"]
    chosen = [3, 4, 9, 20]
    found = [
        next(iterate_batches(make_train(samples=samples), torch.tensor(chosen), 4, 2, views=views))
        for samples in (chosen, chosen[::-1])
    ]
    expected = torch.stack([mixed_alone(sample, 2, chosen, views)[0] for sample in chosen])
    assert all(torch.equal(batch.images, expected) for batch in found)


def test_mixed_views_may_have_numbers_of_their_own():
    views, train = MIXING["both"], make_train(samples=[2, 7, 8], repeats_to=7)
    order = torch.tensor([7, 2, 8, 2, 7, 8, 2])
    numbers = views_of_passes(7, 3, epoch=4, seed=1)
    (batch,) = iterate_batches(train, order, 7, numbers, views=views)
    for place, (sample, number) in enumerate(zip(order.tolist(), numbers.tolist(), strict=True)):
        image, partner_label, share = mixed_alone(sample, number, [2, 7, 8], views)
        assert torch.equal(batch.images[place], image)
        assert (batch.partner_labels[place], batch.label_shares[place]) == (partner_label, share)


def test_streamed_partners_are_the_resident_ones_to_the_bit(streamed_images):
    order = shuffle(torch.arange(NUM_SAMPLES), NUM_SAMPLES + 2, generator=generator(2))
    found, expected = (
        list(iterate_batches(make_train(images), order, 5, 1, views=MIXING["both"]))
        for images in (streamed_images, None)
    )
    for first, second in zip(found, expected, strict=True):
        assert torch.equal(first.images, second.images)
        assert torch.equal(first.partner_labels, second.partner_labels)
        assert torch.equal(first.label_shares, second.label_shares)


def test_an_objective_takes_both_labels_where_views_are_mixed():
    (plain,) = batches_of(make_train(), torch.arange(NUM_SAMPLES), NUM_SAMPLES)
    assert plain.targets is plain.labels
    assert (plain.partner_labels, plain.label_shares) == (None, None)
    (mixed,) = iterate_batches(
        make_train(), torch.arange(NUM_SAMPLES), NUM_SAMPLES, 3, views=MIXING["mixup"]
    )
    assert isinstance(mixed.targets, MixedLabels)
    assert mixed.targets.own is mixed.labels
    assert mixed.targets.partner is mixed.partner_labels
    assert mixed.targets.own_share is mixed.label_shares


def test_the_teachers_outputs_are_those_of_the_sample_and_not_of_its_partner():
    order = torch.randperm(NUM_SAMPLES, generator=generator(1))
    train = make_train(teacher_outputs=Outputs())
    (batch,) = iterate_batches(train, order, NUM_SAMPLES, 3, views=MIXING["cutmix"])
    assert torch.equal(batch.teacher_outputs["logits"], order + 3000)
