"""Speed against other systems: `python -m benchmarks`; the figures are in `results.md`."""
