"""Tasks about programs: what they return, what they need, how to write them, and where they are wrong."""
