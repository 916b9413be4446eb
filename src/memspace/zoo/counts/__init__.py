"""Four counts of a network's memory on one training set, in bits."""
