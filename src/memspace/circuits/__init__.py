"""Parametrised quantum circuits as networks, on plain statevectors. Imports only torch and basics."""
