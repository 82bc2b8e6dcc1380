"""Porting: weights move between a state_dict and variables."""
