"""One file per distillation loss; every divergence is computed in float32 from `log_softmax`.

Nothing is imported here, so that a stage depends on the files of its own losses alone.
"""
