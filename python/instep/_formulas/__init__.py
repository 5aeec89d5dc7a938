"""Rules that are formulas: from text to a program that the engine runs.

`grammar` reads text, `algebra` is what it means, `program` what the engine is told, `definition`
all that makes a rule of it.
"""
