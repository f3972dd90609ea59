"""The teacher's stored outputs, and the objective of a method."""
