"""Memory, robustness, efficiency and disentanglement of networks whose inputs have known factors."""
