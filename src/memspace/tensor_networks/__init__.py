"""Matrix product states as networks: modules, canonical forms, entanglement, truncation. Imports only torch and basics."""
