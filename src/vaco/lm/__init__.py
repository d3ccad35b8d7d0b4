"""Reinforcement learning of language models: forward lag in mathematical reasoning (the paper's Figure 5)."""
