"""What jemtrack takes beside reference loops, and what its own parts cost."""
