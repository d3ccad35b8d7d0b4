"""Classic reinforcement learning on MuJoCo."""
