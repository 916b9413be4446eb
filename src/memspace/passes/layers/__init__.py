"""Kinds of layers, a file for each; ``registry`` lists them."""
