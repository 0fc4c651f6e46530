"""What the trainers minimise."""
