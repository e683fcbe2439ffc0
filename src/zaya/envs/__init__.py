"""Verifiable tasks: a problem goes out, an answer comes in, a score comes back. Imports no torch."""
