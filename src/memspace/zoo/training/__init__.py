"""Training a zoo: networks of equal shapes at once, each to the same training loss."""
