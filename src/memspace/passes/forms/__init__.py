"""Per-example gradients of a block, in the form that its layer gives them: a file for each form."""
