"""The search for the best combination of parameters: trials, successive halving, and who trains them."""
