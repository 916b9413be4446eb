"""memspace reads a trained PyTorch network as a memory space."""

__version__ = "0.1.0"
