"""Edits of a network's memory. Each gives new weights; the model it was given stays as it is."""
