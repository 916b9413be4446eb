"""Encoders of images with known factors: declared, trained by the methods of the field, scored, kept in one store."""
