"""Where data sets come from: known sources, the user's own files, downloads, formats."""
