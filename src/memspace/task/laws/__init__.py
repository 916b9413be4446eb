"""Output laws, one a file, and what they share."""
