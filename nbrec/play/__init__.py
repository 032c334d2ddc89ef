"""Trained models to play with: files, answers, the page, Letterboxd, posters."""
