"""The dock's panels: each shows part of the state and emits what the user wants, no more."""
