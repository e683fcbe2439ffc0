"""How good a system is, and how sure that is: problems in, records and intervals out. Imports no torch."""
