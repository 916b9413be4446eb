"""Matrix product states as networks: modules, canonical forms, entanglement, truncation."""
