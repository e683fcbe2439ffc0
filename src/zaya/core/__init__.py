"""The floor: knows no model."""
