"""A run as data and as a folder: its spec, its files, finding one by the beginning of its id."""
