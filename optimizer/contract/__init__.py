"""What a pass declares, what it is given, and what it gives back; all that a plug-in imports.

May import ``optimizer.analysis``, ``optimizer.statistics`` and what is below these.
"""
