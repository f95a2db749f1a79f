"""Sums over all training points, with one function in front of the engines."""
