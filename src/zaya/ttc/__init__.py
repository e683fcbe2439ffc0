"""More thinking at the time of the question, over anything that completes text. Imports no torch."""
