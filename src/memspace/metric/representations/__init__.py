"""The representations that memspace ships, a family a file; each registers itself when its module is imported."""
