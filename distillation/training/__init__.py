"""Batches on the device, augmented views, the schedule and the training loop."""
