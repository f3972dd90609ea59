"""The commands of `python -m distillation`."""
