"""One function per operation: a readable reference beside the fast path."""
