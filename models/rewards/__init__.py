"""Rewards: what a search climbs. One file each; a higher score is better."""
