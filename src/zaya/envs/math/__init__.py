"""Mathematics: answers compared as mathematics, and tasks whose answers are."""
