"""Sources of images, their splits, and the packed set that every stage reads."""
