"""When a text counts as right.

Question + text -> a scorer -> Score (values, what was read, why nothing was)
"""
