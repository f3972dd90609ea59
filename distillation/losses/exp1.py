"""Experiment 1: cross-entropy and T² · KL(teacher ‖ student) of the logits, and nothing else.

Both terms belong to every method: the first is `distillation.distilling.objective`'s, the second
`distillation.losses.logits.KLLogitLoss`. So this file adds no loss of its own; a `build_logit_loss`
or `build_feature_loss` in it would change experiment 1 alone.
"""
