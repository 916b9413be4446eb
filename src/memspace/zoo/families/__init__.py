"""Families of architectures, a file each."""
