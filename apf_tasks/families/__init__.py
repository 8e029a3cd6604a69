"""The families: a folder or module for each kind of language problem, found by its name; nothing else names one.

A family module defines `PARAMS`, the options a user may write under `family:`, and `family(params)`, which gives the
record (`apf_tasks.family.Family`) for them. Modules whose name starts with an underscore are parts that families share.
"""
