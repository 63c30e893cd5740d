"""How the models of the full pocket world are made: the words of innerview.pocket, behaviours, chat, checks.

`training/` itself, with `training/world/`, made the small model that is bundled until these models meet their bars.
"""
