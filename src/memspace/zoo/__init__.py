"""A zoo of trained networks, their measures and outcomes."""
