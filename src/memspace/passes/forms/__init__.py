"""Per-example gradients of a block, in the form of its layer: a file for every form."""
