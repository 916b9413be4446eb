"""Action along training and along depth."""
