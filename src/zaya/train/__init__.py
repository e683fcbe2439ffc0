"""Everything that changes weights by a gradient."""
