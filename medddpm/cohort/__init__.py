"""Many scans on many workers: a scan is a job that can be done again, anywhere, at any time."""
