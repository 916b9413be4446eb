"""Tasks: model, output law, data, and the flat layout of the parameters."""
