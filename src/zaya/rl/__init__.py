"""Reinforcement learning from verifiable rewards: rollouts, credit, the loss, and the loop around them."""
