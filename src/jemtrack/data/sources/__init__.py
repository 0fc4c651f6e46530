"""Where data sets come from: known sources, one's own files, downloads, formats."""
