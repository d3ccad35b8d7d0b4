"""Thin adapters to other people's trainers; each module needs the extra of its own name."""
