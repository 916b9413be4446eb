"""The Fisher metric at one point, behind one interface and several representations."""
