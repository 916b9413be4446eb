"""Ground truth by retraining, and experiments on it."""
