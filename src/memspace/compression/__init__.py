"""Smaller layers: low rank in the metric of a layer, shared out over layers by predicted loss."""
