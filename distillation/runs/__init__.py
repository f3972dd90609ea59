"""What one training leaves behind: metrics, predictions, curves; all trainings of one method."""
