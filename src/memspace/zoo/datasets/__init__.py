"""Data sets of the zoo, a file each."""
