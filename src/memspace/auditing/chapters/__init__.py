"""The chapters of an audit: each turns a :class:`~memspace.auditing.reading.Reading` into measurements and findings."""
