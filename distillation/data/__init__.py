"""Sources of images, their splits, and the prepared set that every stage reads."""
