"""Workflows over a server's model: the same run, steps and records, with requests in place of a batch."""
