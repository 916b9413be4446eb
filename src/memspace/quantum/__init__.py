"""Geometry of quantum states: metrics, least action, entanglement spectra, parent Hamiltonians, complexity."""
