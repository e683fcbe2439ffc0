"""Problems from a user's files, in the formats of public benchmarks. Imports no torch."""
