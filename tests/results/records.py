"""Made-up trainings of some methods, for tables and what is said of them."""

SHOWN = [
    "exp",
    "before_acc",
    "after_acc",
    "gain_acc",
    "before_f1",
    "after_f1",
    "gain_f1",
    "best_acc",
    "best_f1",
    "acc_over_control",
]
SPREADS = [
    "over_control_low",
    "over_control_high",
    "over_control_p",
    "after_acc_std",
    "after_f1_std",
    "best_acc_std",
    "best_f1_std",
]
COLUMNS = [*SHOWN, *SPREADS, "n"]
TEACHER = {"acc": 90.0, "f1": 0.9, "trained": True, "checkpoint": None}
EVEN = {
    "num_images": 100,
    "majority_class": "a",
    "majority_share": 10.0,
    "is_notable": False,
    "absent_classes": [],
}
BALANCE = {"test": EVEN, "validation": EVEN}
T_975_DF_2 = 4.302653


def make_record(after_acc, after_f1=0.8, *, seed=0, **more):
    return {
        "seed": seed,
        "before_acc": 10.0,
        "after_acc": after_acc,
        "before_f1": 0.05,
        "after_f1": after_f1,
        "before_loss": 2.3,
        "after_loss": 0.6,
        "best_acc": after_acc + 1.0,
        "best_f1": after_f1 + 0.01,
        "best_ece": 0.05,
        "best_epoch": 2,
        "epochs": 3,
        "validation_acc": 85.0,
        "teacher_outputs": "stored",
        **more,
    }


def make_method(*after_accs, **more):
    """Give the trainings of a method with the seeds 0, 1, …"""
    return [make_record(acc, seed=seed, **more) for seed, acc in enumerate(after_accs)]


ALL = {  # in an order that is not the table's
    "exp3": make_method(81.5),
    "exp1": make_method(83.25),
    "control": make_method(82.0),
    "exp2": make_method(82.123456),
}
NO_CONTROL = {name: ALL[name] for name in ("exp2", "exp1")}
SEEDS = {
    "control": make_method(80.0, 81.0, 82.0),
    "exp1": make_method(82.0, 83.1, 83.9),  # 2, 2.1, 1.9 ahead
    "exp2": make_method(81.0, 83.0, 85.0),  # 1, 2, 3 ahead: not told apart
    "exp3": make_method(79.0, 79.9, 81.1),  # 1, 1.1, 0.9 behind
}
