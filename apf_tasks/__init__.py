"""The stages of full-parameter fine-tuning as plain functions, and what they hand to each other."""
