"""Action along training."""
