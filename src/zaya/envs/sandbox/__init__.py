"""Running programs that a model wrote, where they can do no harm; `envs.sandbox.runner` has the public names."""
