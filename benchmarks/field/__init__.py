"""The field trial: data that no constant of memspace was chosen on, audited as a stranger would."""
