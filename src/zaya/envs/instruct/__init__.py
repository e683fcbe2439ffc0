"""Following instructions that a rule can check: `instruct/` in `envs.registry`."""
