"""How sure a number is: mean, spread over seeds, and intervals of paired differences.

Two methods trained with the same seeds share initialisation, order of batches and views, so their
difference is taken seed by seed: what a seed does to both cancels out.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence

from scipy.special import stdtr, stdtrit

CONFIDENCE = 0.95
NOISE_POINTS = 0.5
"""A smaller difference in accuracy, of one seed or without an interval, may be luck."""
_ROUNDING = 1e-6
"""Accuracies in percent and F1 are kept with this many digits or more."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Difference:
    """The mean of paired differences with its 95 % confidence interval."""

    mean: float
    low: float | None
    """None, as `high`, when there are fewer than two pairs, or all differ by the same."""
    high: float | None
    n: int

    @property
    def is_separated(self) -> bool:
        """Return whether the interval leaves out 0; where there is none, it does not."""
        return self.low is not None and self.high is not None and not self.low <= 0.0 <= self.high

    @property
    def p_value(self) -> float | None:
        """Return the p of the paired t-test, two-sided, uncorrected; None as the interval."""
        if self.low is None or self.high is None:
            return None
        half = (self.high - self.low) / 2
        critical = stdtrit(self.n - 1, 0.5 + CONFIDENCE / 2)
        return float(2.0 * stdtr(self.n - 1, -abs(self.mean) / half * critical))

    def to_text(self, *, digits: int = 2) -> str:
        """Say it in a few words, e.g. `+1.20 (95 % CI +0.40 … +2.00, n = 5)`."""
        text = f"{self.mean:+.{digits}f}"
        if self.low is None or self.high is None:
            why = "" if self.n == 1 else ", the same for each seed, so no interval"
            return f"{text} (n = {self.n}{why})"
        return f"{text} (95 % CI {self.low:+.{digits}f} … {self.high:+.{digits}f}, n = {self.n})"


def mean(values: Sequence[float]) -> float:
    """Return the mean of at least one value."""
    return statistics.fmean(values)


def deviation(values: Sequence[float]) -> float | None:
    """Return the sample standard deviation (n − 1); None for fewer than two values."""
    return statistics.stdev(values) if len(values) > 1 else None


def paired_difference(
    values: Mapping[int, float], reference: Mapping[int, float]
) -> Difference | None:
    """Return the mean of value − reference over the seeds both have, with Student's t interval.

    Args:
        values: by seed.
        reference: by seed.

    Returns:
        None when they have no seed in common. Two seeds give an interval, and a wide one: t has
        one degree of freedom then. Differences that are all equal give none: on a small test split
        that happens by chance, and an interval without width would claim certainty.
    """
    seeds = sorted(values.keys() & reference.keys())
    differences = [values[seed] - reference[seed] for seed in seeds]
    if not differences:
        return None
    center, spread = mean(differences), deviation(differences)
    if spread is None or spread < _ROUNDING:
        return Difference(mean=center, low=None, high=None, n=len(seeds))
    half = float(stdtrit(len(seeds) - 1, 0.5 + CONFIDENCE / 2)) * spread / len(seeds) ** 0.5
    return Difference(mean=center, low=center - half, high=center + half, n=len(seeds))


def correct_by_holm(p_values: Mapping[str, float | None]) -> dict[str, float | None]:
    """Correct the p values of several comparisons for their number (Holm, 1979).

    The smallest of m is multiplied by m, the next by m − 1 and so on; none is smaller than one
    before it, or larger than 1.

    Args:
        p_values: by name of the comparison; None where there is none, which is not counted.
    """
    known = sorted((p, name) for name, p in p_values.items() if p is not None)
    corrected: dict[str, float | None] = dict.fromkeys(p_values)
    largest = 0.0
    for rank, (p, name) in enumerate(known):
        largest = max(largest, min(1.0, (len(known) - rank) * p))
        corrected[name] = largest
    return corrected


def p_text(p: float) -> str:
    """Return a p value for a sentence, e.g. `p = 0.031` or `p < 0.001`."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
