"""What a tracker shows can be made again from the record."""
