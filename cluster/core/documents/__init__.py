"""Jobs, alert rules and channels as JSON documents: the models that check them, and the way back from values.

All faults of a document are found at once, each with its path. No clock and no database here.
"""
