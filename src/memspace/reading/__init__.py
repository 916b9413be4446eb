"""What can be read off a network's geometry: modes of memory, invariants, units that detect concepts."""
