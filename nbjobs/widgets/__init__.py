"""The card: how a run is shown in a notebook."""
