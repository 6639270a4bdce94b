"""What others get and check: references, packages, claims, and the judge of finished runs."""
