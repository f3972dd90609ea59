"""Ways in which a file is damaged, and what of a run must be the same after it as before."""

from __future__ import annotations

import json
import os
import re
import shutil

from tests.helpers.sealed import flip_bit

DAMAGES = (
    "flipped bit, time kept",
    "flipped bit",
    "truncated",
    "truncated, time kept",
    "emptied",
    "deleted",
    "a folder instead",
    "a dangling link instead",
)
FOLDERS = ("data", "models", "metrics", "report")
"""Where a run's outputs lie."""
_CIRCUMSTANCES = ("data/raw", "metrics/costs", "metrics/live")
_TIMINGS = ("latency_ms_p50", "latency_ms_p95", "throughput_images_per_second")


def damage(path, how, draw):
    """Damage a file as `how` says; `draw` chooses the place."""
    before = path.stat()
    path.chmod(0o644)
    if how.startswith("flipped"):
        flip_bit(path, draw.randrange(before.st_size), draw.randrange(8))
    elif how.startswith("truncated"):
        os.truncate(path, draw.randrange(max(1, before.st_size)))
    elif how == "emptied":
        os.truncate(path, 0)
    else:
        path.unlink()
    if how == "a folder instead":
        path.mkdir()
    elif how == "a dangling link instead":
        path.symlink_to("nowhere")
    if how.endswith("time kept"):
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def remove(path):
    """Delete whatever stands at a path."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def restore(root, undisturbed):
    """Give a run the outputs of the undisturbed one, whatever is there now."""
    for name in FOLDERS:
        remove(root / name)
        shutil.copytree(undisturbed / name, root / name, symlinks=True)


def results(root, *folders):
    """Return all that a run computed, by path: bytes, but for times, speeds and the commit.

    Stages that run in this process record its own commit, not the work tree's.
    """
    found = {}
    for folder in folders or FOLDERS:
        for path in sorted((root / folder).rglob("*")):
            name = str(path.relative_to(root))
            if path.is_file() and not name.startswith(_CIRCUMSTANCES):
                found[name] = _without_circumstances(name, path.read_bytes())
    return found


def without_costs(page):
    """Take the section on what training cost out of a report (bytes): it differs in every run."""
    return re.sub(rb'<section id="training-cost">.*?</section>', b"", page, flags=re.DOTALL)


def _without_circumstances(name, content):
    if name == "metrics/deploy.json":
        deploy = json.loads(content)
        deploy.pop("sha256", None)  # of all that is in it, times too
        for model in deploy["models"].values():
            for key in _TIMINGS:
                model.pop(key)
        return deploy
    if name.startswith("metrics/seeds/"):
        values = json.loads(content)
        values.pop("sha256")
        for key in ("commit", "commit_date", "uncommitted_changes"):
            values["environment"].pop(key, None)
        return values
    if name in ("report/index.html", "models/student/README.md"):  # they show speeds
        content = without_costs(content)
        return re.sub(rb"-p[0-9a-f]{10}\b|\b[0-9a-f]{7,40}\b|[\d,.]+", b"0", content)
    return content


def differences(root, undisturbed, *folders):
    """Return the paths in which a run differs from the undisturbed one."""
    mine, whole = results(root, *folders), results(undisturbed, *folders)
    return sorted(name for name in {*mine, *whole} if mine.get(name) != whole.get(name))
