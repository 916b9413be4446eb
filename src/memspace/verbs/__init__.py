"""What memspace does, one verb a file; the same names in Python (``memspace.prune``) and on the command line."""
