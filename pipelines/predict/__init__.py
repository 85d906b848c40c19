"""Poses of the people in photos and films, without labels."""
