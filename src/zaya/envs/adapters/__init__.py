"""Our environments under the interfaces of other trainers: one file for each, which alone imports the other library,
and only when it is used. Ours stays the interface inside: none of theirs has a difficulty, or data that can be scored
in another process. Source: spec post-training 8.1."""
