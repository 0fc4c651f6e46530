"""The losses that the trainers minimise, one method a file."""
