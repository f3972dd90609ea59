"""The pipeline's steps, run as `python -m stages.NAME` from the root of the work tree."""
