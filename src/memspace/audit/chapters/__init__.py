"""The chapters of an audit: each turns a :class:`~memspace.audit.reading.Reading` into measurements and findings."""
