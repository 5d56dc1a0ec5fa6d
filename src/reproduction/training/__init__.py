"""Trainings of networks: recipe, loop and memory."""
