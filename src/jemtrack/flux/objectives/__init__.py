"""What the family's steps minimise, an objective a file."""
