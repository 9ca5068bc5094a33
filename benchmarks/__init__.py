"""Measurements of nbjobs beside what one would use instead; ``make bench`` runs them."""
