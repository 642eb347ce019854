"""The guards: triggers that keep locked experiments and sealed versions as they are, for every client."""
